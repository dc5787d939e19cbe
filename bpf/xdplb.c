// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Count @verdict on a packet that does not leave by XDP, and say it in XDP's words. */
static __always_inline int finish(enum verdict verdict)
{
	count_verdict(verdict);
	return verdict < DROP_MALFORMED ? XDP_PASS : XDP_DROP;
}

int xdplb(struct xdp_md *ctx)
{
	struct packet pkt;
	enum verdict verdict;

	pkt.ctx = ctx;
	verdict = parse_packet(&pkt);
	if (verdict != CONTINUE)
		return finish(verdict);
	verdict = answer_client(&pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(&pkt);
	if (verdict != FORWARD && verdict != RETURN)
		return finish(verdict);
	count_verdict(verdict);
	rewrite(&pkt);
	return transmit(&pkt);
}
