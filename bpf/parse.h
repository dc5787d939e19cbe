/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From raw bytes to struct packet. Whatever is not clearly a UDP datagram to the
 * service address goes to the kernel, which knows how to refuse it.
 */
#ifndef XDPLB_PARSE_H
#define XDPLB_PARSE_H

/*
 * Check the headers of the packet at @ctx and fill @pkt.
 *
 * CONTINUE for a UDP datagram to the service address with its ports in reach,
 * else a PASS verdict. ARP is learned from on the way.
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
	if (pkt->eth->type != be16(ETHERTYPE_IPV4) || pkt->ip->protocol != PROTOCOL_UDP ||
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
	if (pkt->ip->fragment & be16(IPV4_FRAGMENT_OFFSET))
		return PASS_FRAGMENT;

	pkt->udp = (void *)pkt->ip + header_length;
	pkt->udp_room = pkt->ip_length - header_length;
	if ((void *)(pkt->udp + 1) > end || pkt->udp_room < sizeof(struct udp_header))
		return PASS_NOT_OURS;
	pkt->is_fragment = pkt->ip->fragment & be16(IPV4_MORE_FRAGMENTS);
	pkt->now = bpf_jiffies64() * JIFFY_SCALE >> JIFFY_SHIFT;
	return CONTINUE;
}

/* CONTINUE if a packet that is ours may leave again, else the reason why not. */
static __always_inline enum verdict packet_check(const struct packet *pkt)
{
	u32 udp_length = be16(pkt->udp->length);

	if (pkt->is_fragment)
		return DROP_FRAGMENT;
	if (udp_length < sizeof(struct udp_header) || udp_length > pkt->udp_room)
		return DROP_MALFORMED;
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	return CONTINUE;
}

#endif
