/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The interfaces that the program sits on: by which one a packet came in, and how it
 * leaves by another. With one interface nothing is searched.
 */
#ifndef XDPLB_INTERFACE_H
#define XDPLB_INTERFACE_H

/* The interface @pkt came in by: fills @pkt->interface; NULL if it is none of ours. */
static __always_inline struct interface *packet_interface(struct packet *pkt)
{
	for (u32 slot = 0; slot < INTERFACE_COUNT; slot++) {
		u32 index = slot; /* what a helper reads, older verifiers forget */
		struct interface *interface = interfaces.lookup(&index);

		if (!interface)
			return NULL;
		if (INTERFACE_COUNT == 1 || interface->ifindex == pkt->ctx->ingress_ifindex) {
			pkt->interface = slot;
			return interface;
		}
	}
	return NULL;
}

/* Is the frame of @pkt, which came in by @interface, for the balancer? */
static __always_inline bool interface_is_meant(const struct packet *pkt,
					       const struct interface *interface)
{
	u64 mac = mac_word(pkt->eth->destination);

#define MAC(word) || mac == (word)
	return mac == interface->mac VIRTUAL_MACS(MAC);
#undef MAC
}

/*
 * Let @pkt leave by the interface in @slot. False where there is none. The only one has
 * the MAC address that the packet was sent to.
 */
static __always_inline bool route_leave(struct packet *pkt, u32 slot)
{
	struct route *route = &pkt->route;
	struct interface *interface;

	route->interface = slot;
	if (INTERFACE_COUNT == 1) {
		route->source_mac = mac_word(pkt->eth->destination);
		return true;
	}
	interface = interfaces.lookup(&slot);
	if (!interface)
		return false;
	route->source_mac = interface->mac;
	route->ifindex = interface->ifindex;
	route->redirect = interface->redirect;
	route->mtu = interface->mtu;
	return true;
}

/*
 * Is the way on of @pkt, by its route, wide enough for it? By the interface that it came in
 * by, it is.
 */
static __always_inline bool route_fits(const struct packet *pkt)
{
	return INTERFACE_COUNT == 1 || pkt->ip_length <= pkt->route.mtu;
}

/*
 * Send @pkt by its route: XDP_TX where it leaves by the interface it came in by. On veth
 * that works only if the peer runs XDP itself; a redirect needs no more than its GRO.
 */
static __always_inline int transmit(const struct packet *pkt)
{
	trace_route(&pkt->route);
	if (pkt->route.tags && !frame_tag(pkt->ctx, pkt->route.tags))
		return XDP_DROP;
	if (INTERFACE_COUNT == 1)
		return TRANSMIT_REDIRECT ? bpf_redirect(pkt->ctx->ingress_ifindex, 0) : XDP_TX;
	if (pkt->route.ifindex == pkt->ctx->ingress_ifindex && !pkt->route.redirect)
		return XDP_TX;
	return bpf_redirect(pkt->route.ifindex, 0);
}

#endif
