// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Carry out @verdict, count it and say it in XDP's words. */
static __always_inline int finish(struct packet *pkt, enum verdict verdict)
{
	count_verdict(verdict);
	switch (verdict) {
	case FORWARD:
	case RETURN:
		rewrite(pkt);
		return transmit(pkt);
	case PASS_NOT_OURS:
	case PASS_SOCKET:
	case PASS_FRAGMENT:
		return XDP_PASS;
	default:
		return XDP_DROP;
	}
}

int xdplb(struct xdp_md *ctx)
{
	struct packet pkt = { .ctx = ctx };
	enum verdict verdict = parse_packet(&pkt);

	if (verdict == CONTINUE)
		verdict = answer_client(&pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(&pkt);
	return finish(&pkt, verdict);
}
