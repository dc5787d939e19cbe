/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Readdress a packet: MAC addresses, IP addresses, ports, TTL and both checksums.
 * Nothing else changes: DSCP, ECN, DF, ID, options, payload and padding stay.
 */
#ifndef XDPLB_REWRITE_H
#define XDPLB_REWRITE_H

/* The sum of @pkt's pseudo-header, as its addresses are now. */
static __always_inline u64 packet_pseudo(const struct packet *pkt)
{
	return csum_pseudo(pkt->ip->source, pkt->ip->destination, packet_protocol(pkt),
			   pkt->length);
}

/*
 * Does @check, the checksum of @pkt, hold only the pseudo-header's sum? A sender on veth
 * or virtio leaves it so, for its device to finish (CHECKSUM_PARTIAL).
 *
 * The checksum of a fragmented datagram is always whole, and only part of the datagram is
 * here. In generic mode the kernel finishes it later, so a wrong guess would break the
 * packet: there a checksum that is right as it stands is never called partial.
 */
static __always_inline bool csum_is_partial(const struct packet *pkt, u16 check)
{
	u64 pseudo = packet_pseudo(pkt);
	u64 sum = pseudo;

	if (check != csum_fold(pseudo) || packet_is_fragment(pkt))
		return false;
	if (!MODE_GENERIC)
		return true;
	return !csum_add_bytes(pkt->ctx, pkt->ports, pkt->length, CSUM_BLOCKS, &sum) ||
	       csum_fold(sum) != 0xffff;
}

/*
 * The checksum of the rewritten @pkt from nothing but its bytes, where @check is 0. A
 * packet that native mode can get is never too long for csum_add_bytes().
 */
static __always_inline u16 csum_whole(const struct packet *pkt)
{
	u64 sum = packet_pseudo(pkt);

	csum_add_bytes(pkt->ctx, pkt->ports, pkt->length, CSUM_BLOCKS, &sum);
	return ~csum_fold(sum);
}

/* Write the MAC addresses of @pkt's route, in two words. */
static __always_inline void rewrite_eth(struct packet *pkt)
{
	const struct route *route = &pkt->route;

	*(u64 *)pkt->eth->destination = route->destination_mac | route->source_mac << 48;
	*(u32 *)(pkt->eth->source + 2) = route->source_mac >> 16;
}

/* What it adds to a sum that a packet to the balancer is sent on from @source to @destination. */
static __always_inline u64 rewrite_diff(const struct ip_header *ip, address source,
					address destination)
{
	if (!MANY_SERVICES)
		return address_diff(ip->source, destination);
	return address_diff(ip->source, source) + address_diff(ip->destination, destination);
}

/*
 * Send @pkt by its route, from an address of the balancer.
 *
 * Where that is the address that it came to, only the old source and the new destination count
 * in a checksum. That of UDP and TCP covers addresses and ports.
 * A UDP checksum of 0 means that the sender computed none, and stays; a computed one that
 * lands on 0 goes out as 0xffff (RFC 768). A wrong one stays wrong by as much, so that the
 * receiver notices.
 */
static __always_inline void rewrite_checked(struct packet *pkt, u16 *check, bool is_tcp)
{
	const struct route *route = &pkt->route;
	struct ip_header *ip = pkt->ip;
	struct port_header *ports = pkt->ports;
	bool is_partial = csum_is_partial(pkt, *check);
	address source = own_address(route_local(route));
	u64 addresses = rewrite_diff(ip, source, route->destination);
	u64 diff = addresses + csum_diff16(ports->source, route->source_port) +
		   csum_diff16(ports->destination, route->destination_port);

	rewrite_eth(pkt);
	ip_hop(ip, addresses);
	ip->source = source;
	ip->destination = route->destination;
	ports->source = route->source_port;
	ports->destination = route->destination_port;

	if (!*check && !is_tcp)
		return;
	if (!is_partial) {
		*check = csum_apply(*check, diff);
	} else if (MODE_GENERIC) {
		*check = csum_fold(packet_pseudo(pkt));
	} else {
		*check = 0;
		*check = csum_whole(pkt);
	}
	if (!*check && !is_tcp)
		*check = 0xffff;
}

/*
 * Send @pkt by its route where nothing behind the IP header names addresses or ports. Returns
 * what the new addresses add to a sum.
 */
static __always_inline u64 rewrite_ip(struct packet *pkt)
{
	struct ip_header *ip = pkt->ip;
	address source = own_address(route_local(&pkt->route));
	u64 diff = rewrite_diff(ip, source, pkt->route.destination);

	rewrite_eth(pkt);
	ip_hop(ip, diff);
	ip->source = source;
	ip->destination = pkt->route.destination;
	return diff;
}

/* Give @pkt, a fragment, another identification. */
static __always_inline void rewrite_id(struct packet *pkt, datagram_id id)
{
	ip_set_id(pkt->ctx, pkt->ip, pkt->id_at, id);
}

/* The two cases apart, since the verifier has to see which checksum stands where. */
static __always_inline void rewrite(struct packet *pkt)
{
	struct tcp_header *tcp;

	if (!packet_is_tcp(pkt)) {
		rewrite_checked(pkt, &packet_udp(pkt)->check, false);
		return;
	}
	tcp = packet_tcp(pkt);
	if (tcp)
		rewrite_checked(pkt, &tcp->check, true);
}

#endif
