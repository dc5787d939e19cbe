// SPDX-License-Identifier: GPL-2.0
/*
 * One packet through the balancer. The files it is made of come before it, in the
 * order of bpf/README.md; this is their table of contents.
 */

/* Count @verdict and say it in XDP's words; XDP_TX is for a packet that has yet to be sent. */
static __always_inline int finish(enum verdict verdict)
{
	count_verdict(verdict);
	trace_verdict(verdict);
	if (verdict_is_sent(verdict))
		return XDP_TX;
	return verdict < DROP_MALFORMED ? XDP_PASS : XDP_DROP;
}

/* Is the sender of a packet with @verdict to hear of it? */
static __always_inline bool verdict_is_answered(enum verdict verdict)
{
	return verdict == DROP_TTL || (INTERFACE_COUNT > 1 && verdict == DROP_TOO_BIG);
}

/* Do @action to @pkt, which does not leave: the kernel gets it as it came, with its tags. */
static __always_inline int stay(const struct packet *pkt, int action)
{
	if (pkt->tags && action == XDP_PASS && !frame_tag(pkt->ctx, pkt->tags))
		return XDP_DROP;
	return action;
}

/* The part of the walk for what is rare: ICMP, fragments, packets that cannot go on. */
static __always_inline int walk_rare(struct packet *pkt, enum verdict verdict)
{
	int action;

	trace_source(pkt->ip->source, 0);
	if (verdict_is_answered(verdict))
		verdict = reply_error(pkt, verdict);
	else if (pkt->is_tail)
		verdict = fragment_follow(pkt);
	else
		verdict = translate_error(pkt);
	action = finish(verdict);
	return action == XDP_TX ? transmit(pkt) : stay(pkt, action);
}

/* The walk; what becomes of the packet at @pkt->ctx, in XDP's words. */
static __always_inline int walk(struct packet *pkt)
{
	enum verdict verdict;
	u64 is_untagged = 0;
	int action;

	pkt->tags = 0;
again:
	/* A number that the verifier follows: that there are tags by now does not tell it so. */
	opaque(is_untagged);
	verdict = parse_packet(pkt);
	if (verdict != CONTINUE) {
		/* Whoever has no tags does not pay for those who have. */
		if (HAVE_VLAN && !is_untagged && frame_is_tagged(pkt->ctx)) {
			is_untagged = 1;
			pkt->tags = frame_untag(pkt->ctx);
			if (pkt->tags)
				goto again;
		}
		return stay(pkt, finish(verdict));
	}
	packet_clear(pkt);
	if (pkt->is_icmp || pkt->is_tail)
		return walk_rare(pkt, verdict);
	verdict = answer_client(pkt);
	if (verdict == CONTINUE)
		verdict = request_backend(pkt);
	if (verdict_is_answered(verdict))
		return walk_rare(pkt, verdict);
	action = finish(verdict);
	if (action != XDP_TX)
		return stay(pkt, action);
	if (packet_is_fragment(pkt))
		fragment_remember(pkt, verdict);
	rewrite(pkt);
	return transmit(pkt);
}

int xdplb(struct xdp_md *ctx)
{
	struct packet pkt;
	int action;

	pkt.ctx = ctx;
	trace_begin(ctx);
	action = walk(&pkt);
	trace_end(ctx);
	return action;
}
