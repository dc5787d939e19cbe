/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From raw bytes to struct packet. Whatever is not clearly a UDP datagram or a TCP
 * segment to the balancer goes to the kernel, which knows how to refuse it.
 */
#ifndef XDPLB_PARSE_H
#define XDPLB_PARSE_H

/* Is @protocol balanced? */
static __always_inline bool protocol_is_ours(u8 protocol)
{
	return (HAVE_UDP && protocol == PROTOCOL_UDP) || (HAVE_TCP && protocol == PROTOCOL_TCP);
}

/* Let the verifier walk on once, and not once for each address, interface and kind of fragment. */
static __always_inline void packet_blur(struct packet *pkt)
{
	u64 noise = mac_word(pkt->eth->source);
	u64 interface = pkt->interface, local = pkt->local;

	if (MANY_SERVICES) {
		forget(local, noise);
		pkt->local = local;
	}
	if (HAVE_VLAN)
		forget(pkt->tags, noise);
	if (INTERFACE_COUNT > 1) {
		forget(interface, noise);
		pkt->interface = interface;
	}
}

/*
 * Check the headers of the packet at @ctx and fill @pkt.
 *
 * CONTINUE for a packet to an address of the balancer with its ports, or its ICMP header, in
 * reach, and for a fragment without them; else a PASS verdict. What tells the MAC address
 * of a next hop is learned from on the way.
 */
static __always_inline enum verdict parse_packet(struct packet *pkt)
{
	void *data = (void *)(long)pkt->ctx->data;
	void *end = (void *)(long)pkt->ctx->data_end;
	struct interface *interface;
	struct payload payload;
	u32 header_length;

	if (HAVE_VLAN)
		opaque(pkt->tags);
	pkt->eth = data;
	pkt->ip = data + sizeof(struct eth_header);
	if ((void *)(pkt->ip + 1) > end)
		return PASS_NOT_OURS;
	if (neighbour_speaks(pkt)) {
		neighbour_learn(pkt);
		return PASS_NOT_OURS;
	}
	if (pkt->eth->type != be16(ETHERTYPE_IP))
		return PASS_NOT_OURS;
	pkt->local = own_number(pkt->ip->destination);
	if (pkt->local == NO_ADDRESS || !ip_walk(pkt->ctx, pkt->ip, &payload))
		return PASS_NOT_OURS;
	pkt->is_tcp = payload.protocol == PROTOCOL_TCP;
	opaque(pkt->is_tcp);
	pkt->is_icmp = payload.protocol == PROTOCOL_ICMP;
	pkt->is_tail = trace_known(payload.fragment & FRAGMENT_OFFSET);
	if (!protocol_is_ours(payload.protocol) && !pkt->is_icmp && !(FAMILY == 6 && pkt->is_tail))
		return PASS_NOT_OURS;

	interface = packet_interface(pkt);
	if (!interface || !interface_is_meant(pkt, interface))
		return PASS_NOT_OURS;

	header_length = payload.start - (void *)pkt->ip;
	pkt->ip_length = ip_length(pkt->ip);
	if (pkt->ip_length < header_length || (void *)pkt->ip + pkt->ip_length > end)
		return PASS_NOT_OURS;
	pkt->ports = payload.start;
	pkt->room = pkt->ip_length - header_length;
	pkt->now = bpf_jiffies64() * JIFFY_SCALE >> JIFFY_SHIFT;
	if (FAMILY == 6) {
		pkt->fragment = payload.fragment;
		pkt->id = payload.id;
		pkt->id_at = payload.id_at;
	}
	if (pkt->is_tail)
		return CONTINUE;
	if ((void *)(packet_udp(pkt) + 1) > end || pkt->room < sizeof(struct udp_header))
		return PASS_NOT_OURS;
	if (packet_is_tcp(pkt) && (!packet_tcp(pkt) || pkt->room < sizeof(struct tcp_header)))
		return PASS_NOT_OURS;
	packet_blur(pkt);
	pkt->length = 0;
	return CONTINUE;
}

/*
 * Do the lengths in the header of UDP or TCP fit the packet? Then @pkt->length is set. The
 * first of several fragments holds less than its UDP header says.
 */
static __always_inline bool packet_measure(struct packet *pkt)
{
	struct tcp_header *tcp;
	u32 header;

	if (!packet_is_tcp(pkt)) {
		pkt->length = host16(packet_udp(pkt)->length);
		return pkt->length >= sizeof(struct udp_header) &&
		       (pkt->length <= pkt->room || packet_is_fragment(pkt));
	}
	tcp = packet_tcp(pkt);
	if (!tcp)
		return false;
	header = (tcp->offset >> 4) * 4;
	pkt->length = pkt->room;
	return header >= sizeof(struct tcp_header) && header <= pkt->length;
}

/* CONTINUE if a packet that is ours may leave again, else the reason why not. */
static __always_inline enum verdict packet_check(struct packet *pkt)
{
	if (packet_is_fragment(pkt) && pkt->room % 8)
		return DROP_FRAGMENT;
	if (!packet_measure(pkt))
		return DROP_MALFORMED;
	if (!packet_is_tcp(pkt) && FAMILY == 6 && !packet_udp(pkt)->check)
		return DROP_CHECKSUM;
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	packet_blur(pkt);
	return CONTINUE;
}

#endif
