/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Readdress a packet: MAC addresses, IP addresses, ports, TTL and both checksums.
 * Nothing else changes: DSCP, ECN, DF, ID, options, payload and padding stay.
 */
#ifndef XDPLB_REWRITE_H
#define XDPLB_REWRITE_H

/*
 * Does the UDP checksum of @pkt hold only the pseudo-header's sum? A sender on veth or
 * virtio leaves it so, for its device to finish (CHECKSUM_PARTIAL).
 *
 * In generic mode the kernel finishes it later, so a wrong guess would break the
 * packet: there a checksum that is right as it stands is never called partial.
 */
static __always_inline bool csum_is_partial(const struct packet *pkt)
{
	u64 pseudo = csum_pseudo(pkt->ip->source, pkt->ip->destination, pkt->udp->length);
	u64 sum = pseudo;

	if (pkt->udp->check != csum_fold(pseudo))
		return false;
	if (!MODE_GENERIC)
		return true;
	return !csum_add_bytes(pkt->ctx, pkt->udp, be16(pkt->udp->length), &sum) ||
	       csum_fold(sum) != 0xffff;
}

/*
 * The checksum of the rewritten @pkt from nothing but its bytes. A packet that native
 * mode can get is never too long for csum_add_bytes(); if it were, 0 says "none".
 */
static __always_inline u16 csum_whole(const struct packet *pkt)
{
	u64 sum = csum_pseudo(pkt->ip->source, pkt->ip->destination, pkt->udp->length);

	pkt->udp->check = 0;
	if (!csum_add_bytes(pkt->ctx, pkt->udp, be16(pkt->udp->length), &sum))
		return 0;
	return (u16)~csum_fold(sum) ?: 0xffff;
}

/*
 * Send @pkt by its route, from the service.
 *
 * It came to the service's address and leaves from it, so of the addresses only the old
 * source and the new destination count in a checksum. A TTL less by 1 makes its word less
 * by 1: 0xfffe in one's complement. The UDP checksum covers addresses and ports. 0 means
 * that the sender computed none and stays; a computed one that lands on 0 goes out as
 * 0xffff (RFC 768). A wrong one stays wrong by as much, so that the receiver notices.
 */
static __always_inline void rewrite(struct packet *pkt)
{
	const struct route *route = &pkt->route;
	struct ipv4_header *ip = pkt->ip;
	struct udp_header *udp = pkt->udp;
	bool is_partial = udp->check && csum_is_partial(pkt);
	u64 addresses = csum_diff32(ip->source, route->destination);
	u64 ports = csum_diff16(udp->source, route->source_port) +
		    csum_diff16(udp->destination, route->destination_port);

	*(u64 *)pkt->eth->destination = route->destination_mac | route->source_mac << 48;
	*(u32 *)(pkt->eth->source + 2) = route->source_mac >> 16;
	ip->ttl--;
	ip->check = csum_apply(ip->check, addresses + 0xfffe);
	ip->source = SERVICE_ADDRESS;
	ip->destination = route->destination;
	udp->source = route->source_port;
	udp->destination = route->destination_port;

	if (!udp->check)
		return;
	if (!is_partial)
		udp->check = csum_apply(udp->check, addresses + ports) ?: 0xffff;
	else if (MODE_GENERIC)
		udp->check = csum_fold(csum_pseudo(ip->source, ip->destination, udp->length));
	else
		udp->check = csum_whole(pkt);
}

#endif
