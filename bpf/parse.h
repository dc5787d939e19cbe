/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From raw bytes to struct packet. Whatever is not clearly a UDP datagram or a TCP
 * segment to the service address goes to the kernel, which knows how to refuse it.
 */
#ifndef XDPLB_PARSE_H
#define XDPLB_PARSE_H

/* Is @protocol balanced? */
static __always_inline bool protocol_is_ours(u8 protocol)
{
	return (HAVE_UDP && protocol == PROTOCOL_UDP) || (HAVE_TCP && protocol == PROTOCOL_TCP);
}

/*
 * Check the headers of the packet at @ctx and fill @pkt.
 *
 * CONTINUE for a packet to the service address with its ports, or its ICMP header, in
 * reach, and for a fragment without them; else a PASS verdict. ARP is learned from on the way.
 */
static __always_inline enum verdict parse_packet(struct packet *pkt)
{
	void *data = (void *)(long)pkt->ctx->data;
	void *end = (void *)(long)pkt->ctx->data_end;
	struct interface *interface;
	u32 header_length;

	pkt->eth = data;
	pkt->ip = data + sizeof(struct eth_header);
	if ((void *)(pkt->ip + 1) > end)
		return PASS_NOT_OURS;
	if (pkt->eth->type == be16(ETHERTYPE_ARP)) {
		neighbour_learn(pkt);
		return PASS_NOT_OURS;
	}
	pkt->is_tcp = pkt->ip->protocol == PROTOCOL_TCP;
	pkt->is_icmp = pkt->ip->protocol == PROTOCOL_ICMP;
	if (pkt->eth->type != be16(ETHERTYPE_IPV4) ||
	    (!protocol_is_ours(pkt->ip->protocol) && !pkt->is_icmp) ||
	    pkt->ip->destination != (__be32)SERVICE_ADDRESS)
		return PASS_NOT_OURS;

	interface = packet_interface(pkt);
	if (!interface || mac_word(pkt->eth->destination) != interface->mac)
		return PASS_NOT_OURS;

	header_length = (pkt->ip->version_ihl & 0xf) * 4;
	pkt->ip_length = be16(pkt->ip->total_length);
	if (pkt->ip->version_ihl >> 4 != 4 || header_length < sizeof(struct ipv4_header) ||
	    pkt->ip_length < header_length || (void *)pkt->ip + pkt->ip_length > end)
		return PASS_NOT_OURS;
	pkt->ports = (void *)pkt->ip + header_length;
	pkt->room = pkt->ip_length - header_length;
	pkt->now = bpf_jiffies64() * JIFFY_SCALE >> JIFFY_SHIFT;
	pkt->is_tail = pkt->ip->fragment & be16(IPV4_FRAGMENT_OFFSET);
	if (pkt->is_tail)
		return CONTINUE;
	if ((void *)(packet_udp(pkt) + 1) > end || pkt->room < sizeof(struct udp_header))
		return PASS_NOT_OURS;
	if (packet_is_tcp(pkt) && (!packet_tcp(pkt) || pkt->room < sizeof(struct tcp_header)))
		return PASS_NOT_OURS;
	pkt->is_fragment = pkt->ip->fragment & be16(IPV4_MORE_FRAGMENTS);
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
		pkt->length = be16(packet_udp(pkt)->length);
		return pkt->length >= sizeof(struct udp_header) &&
		       (pkt->length <= pkt->room || pkt->is_fragment);
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
	if (pkt->is_fragment && pkt->room % 8)
		return DROP_FRAGMENT;
	if (!packet_measure(pkt))
		return DROP_MALFORMED;
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	return CONTINUE;
}

#endif
