// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Does a packet with @verdict leave again? */
static __always_inline bool verdict_is_sent(enum verdict verdict)
{
	return verdict < PASS_NOT_OURS;
}

/* Count @verdict and say it in XDP's words; XDP_TX is for a packet that has yet to be sent. */
static __always_inline int finish(enum verdict verdict)
{
	count_verdict(verdict);
	if (verdict_is_sent(verdict))
		return XDP_TX;
	return verdict < DROP_MALFORMED ? XDP_PASS : XDP_DROP;
}

/* Is the sender of a packet with @verdict to hear of it? */
static __always_inline bool verdict_is_answered(enum verdict verdict)
{
	return verdict == DROP_TTL || (INTERFACE_COUNT > 1 && verdict == DROP_TOO_BIG);
}

/* The part of the walk for what is rare: ICMP, fragments, packets that cannot go on. */
static __always_inline enum verdict walk_rare(struct packet *pkt, enum verdict verdict)
{
	if (verdict_is_answered(verdict))
		verdict = reply_error(pkt, verdict);
	else if (pkt->is_tail)
		verdict = fragment_follow(pkt);
	else
		verdict = translate_error(pkt);
	if (verdict_is_sent(verdict))
		pkt->tags = pkt->route.tags;
	return verdict;
}

/* From the bytes to the verdict, with the packet rewritten if it is to leave. */
static __always_inline enum verdict walk(struct packet *pkt)
{
	u64 verdict = parse_packet(pkt);

	if (verdict != CONTINUE)
		return verdict;
	packet_clear(pkt);
	if (pkt->is_icmp || pkt->is_tail)
		return walk_rare(pkt, verdict);
	verdict = answer_client(pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(pkt);
	if (verdict_is_answered(verdict))
		return walk_rare(pkt, verdict);
	if (!verdict_is_sent(verdict))
		return verdict;
	if (pkt->is_fragment)
		fragment_remember(pkt, verdict);
	/* FORWARD is 0 and RETURN 1: the verifier need not take the way from here twice. */
	forget(verdict, pkt->now);
	verdict &= RETURN;
	forget(pkt->route.tags, pkt->now);
	rewrite(pkt);
	pkt->tags = pkt->route.tags;
	return verdict;
}

int xdplb(struct xdp_md *ctx)
{
	struct packet pkt;
	int action;

	pkt.ctx = ctx;
	pkt.tags = 0;
	if (frame_is_tagged(ctx)) {
		pkt.tags = frame_untag(ctx);
		if (!pkt.tags)
			return finish(PASS_NOT_OURS);
	}
	opaque(pkt.tags);
	action = finish(walk(&pkt));
	if (pkt.tags && action != XDP_DROP && !frame_tag(ctx, pkt.tags))
		return XDP_DROP;
	return action == XDP_TX ? transmit(&pkt) : action;
}
