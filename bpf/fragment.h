/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Datagrams in fragments (RFC 791, RFC 8200 4.5, RFC 4787 REQ-14). Only the first fragment says its
 * ports; where it went is remembered for a few seconds, and the others follow. Nothing is
 * held back: a fragment that comes before the first one is not the balancer's.
 *
 * Many clients become one source here, so their identifications could collide at the
 * backend and two datagrams be put together as one. Each gets a new one (RFC 6864 5.3.1).
 */
#ifndef XDPLB_FRAGMENT_H
#define XDPLB_FRAGMENT_H

static __always_inline struct fragment_key fragment_key(const struct packet *pkt)
{
	struct fragment_key key = {
		.source = pkt->ip->source,
		.destination = pkt->ip->destination,
		.id = FAMILY == 6 ? pkt->id : ip_id(pkt->ip),
		.protocol = FAMILY == 6 ? 0 : pkt->ip->protocol,
	};

	return key;
}

/*
 * An identification that no recent datagram had. Where other CPUs take one at the same
 * time, again and again, chance has to do.
 */
static __always_inline datagram_id fragment_new_id(void)
{
	u32 zero = 0;
	u64 *last = fragment_ids.lookup(&zero);

	if (!last)
		return 0;
#pragma clang loop unroll(full)
	for (u32 attempt = 0; attempt < 3; attempt++) {
		u64 id = *last;

		if (__sync_val_compare_and_swap(last, id, id + 1) == id)
			return datagram_id_of(id);
	}
	return bpf_get_prandom_u32();
}

/* Remember where @pkt, a first fragment, goes by its route, and give it a new identification. */
static __always_inline void fragment_remember(struct packet *pkt, enum verdict verdict)
{
	struct fragment_key key = fragment_key(pkt);
	struct fragment fragment = {
		.mac = pkt->route.destination_mac,
		.tags = pkt->route.tags,
		.destination = pkt->route.destination,
		.interface = pkt->route.interface,
		.local = route_local(&pkt->route),
		.seen = pkt->now,
		.backend = pkt->route.backend,
		.id = fragment_new_id(),
		.verdict = verdict,
		.protocol = packet_protocol(pkt),
	};

	fragments.update(&key, &fragment);
	rewrite_id(pkt, fragment.id);
}

/* Could @pkt be put over the ports or flags that the @first fragment has shown? (RFC 1858) */
static __always_inline bool fragment_overlaps(const struct packet *pkt,
					      const struct fragment *first)
{
	u32 offset = (packet_fragment(pkt) & FRAGMENT_OFFSET) * 8;

	return first->protocol == PROTOCOL_TCP && offset < sizeof(struct tcp_header);
}

/*
 * Let @pkt, a fragment behind the first one, follow that: FORWARD or RETURN with the
 * packet ready to leave, PASS_FRAGMENT where the first one is not known, or a DROP.
 */
static __always_inline enum verdict fragment_follow(struct packet *pkt)
{
	struct fragment_key key = fragment_key(pkt);
	struct fragment *first = fragments.lookup(&key);
	bool is_last = !packet_is_fragment(pkt);
	enum verdict verdict;

	if (!first || pkt->now - first->seen > FRAGMENT_TICKS)
		return PASS_FRAGMENT;
	if (fragment_overlaps(pkt, first) || (!is_last && pkt->room % 8))
		return DROP_FRAGMENT;
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	if (!route_leave(pkt, first->interface))
		return DROP_UNRESOLVED;
	if (!route_fits(pkt))
		return DROP_TOO_BIG;
	pkt->route.destination_mac = first->mac;
	pkt->route.tags = HAVE_VLAN ? first->tags : 0;
	pkt->route.destination = first->destination;
	pkt->route.local = first->local;
	verdict = first->verdict;
	if (verdict == FORWARD)
		count_in(first->backend, pkt->ip_length);
	else
		count_out(first->backend, pkt->ip_length);
	rewrite_id(pkt, first->id);
	rewrite_ip(pkt);
	return verdict == FORWARD ? FORWARD : RETURN;
}

#endif
