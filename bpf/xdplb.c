// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Count @verdict and say it in XDP's words; XDP_TX is for a packet that has yet to be sent. */
static __always_inline int finish(enum verdict verdict)
{
	count_verdict(verdict);
	if (verdict < PASS_NOT_OURS)
		return XDP_TX;
	return verdict < DROP_MALFORMED ? XDP_PASS : XDP_DROP;
}

/* Is the sender of a packet with @verdict to hear of it? */
static __always_inline bool verdict_is_answered(enum verdict verdict)
{
	return verdict == DROP_TTL || (INTERFACE_COUNT > 1 && verdict == DROP_TOO_BIG);
}

/* The part of the walk for what is rare: ICMP, fragments, packets that cannot go on. */
static __always_inline int walk_rare(struct packet *pkt, enum verdict verdict)
{
	int action;

	if (verdict_is_answered(verdict))
		verdict = reply_error(pkt, verdict);
	else if (pkt->is_tail)
		verdict = fragment_follow(pkt);
	else
		verdict = translate_error(pkt);
	action = finish(verdict);
	return action == XDP_TX ? transmit(pkt) : action;
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
	if (pkt.is_icmp || pkt.is_tail)
		return walk_rare(&pkt, verdict);
	verdict = answer_client(&pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(&pkt);
	if (verdict_is_answered(verdict))
		return walk_rare(&pkt, verdict);
	action = finish(verdict);
	if (action != XDP_TX)
		return action;
	if (pkt.is_fragment)
		fragment_remember(&pkt, verdict);
	rewrite(&pkt);
	return transmit(&pkt);
}
