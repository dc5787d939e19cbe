// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Count @verdict and say it in XDP's words; XDP_TX is for a packet that has yet to be sent. */
static __always_inline int finish(enum verdict verdict)
{
	count_verdict(verdict);
	if (verdict == FORWARD || verdict == RETURN)
		return XDP_TX;
	return verdict < DROP_MALFORMED ? XDP_PASS : XDP_DROP;
}

int xdplb(struct xdp_md *ctx)
{
	struct packet pkt;
	enum verdict verdict;
	int action;

	pkt.ctx = ctx;
	verdict = parse_packet(&pkt);
	if (verdict != CONTINUE)
		return finish(verdict);
	packet_clear(&pkt);
	verdict = answer_client(&pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(&pkt);
	action = finish(verdict);
	if (action != XDP_TX)
		return action;
	rewrite(&pkt);
	return transmit(&pkt);
}
