/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the walk knows of the packet in hand.
 */
#ifndef XDPLB_PACKET_H
#define XDPLB_PACKET_H

/* Where a packet of the service is to go, and as whom. The two MAC addresses are words. */
struct route {
	u64 source_mac;
	u64 destination_mac;
	u64 tags;
	address destination;
	__be16 source_port;
	__be16 destination_port;
	u32 ifindex;
	u32 mtu;
	u16 interface;
	u16 backend;
	u8 local; /* ask route_local() */
	bool redirect;
};

/*
 * The packet in hand. parse_packet() has checked the bounds of every header that a
 * pointer here leads to, but for that of TCP: see packet_tcp(). @interface is the slot it
 * came in by; @now is in ticks. What a step
 * has not reached yet is not set, so that leaving early costs nothing.
 */
struct packet {
	struct xdp_md *ctx;
	u64 tags; /* see vlan.h; they are no longer in the packet */
	struct eth_header *eth;
	struct ip_header *ip;
	struct port_header *ports;
	u32 ip_length;	/* bytes, IP header and payload */
	u32 room;	/* bytes of IP payload */
	u32 length;	/* bytes of UDP or TCP, as its checksum covers them */
	u64 is_tcp;	/* ask packet_is_tcp(); as struct payload has the protocol */
	bool is_icmp;	/* then @ports leads to the ICMP header */
	bool is_tail;	/* another one: it has no ports */
	u16 fragment;	/* its place, for IPv6: ask packet_fragment() */
	datagram_id id; /* what all of them have in common; see ip_walk() */
	u32 id_at;	/* and where that stands */
	u16 interface;
	u8 local;   /* ask packet_local() */
	u8 service; /* ask packet_service() */
	u32 now;
	struct route route; /* filled once the verdict is FORWARD or RETURN */
};

/*
 * Fill in what only some packets come to have. LLVM keeps such values in registers past
 * the place where the others leave, and the verifier refuses a register without a value.
 */
static __always_inline void packet_clear(struct packet *pkt)
{
	pkt->length = 0;
	__builtin_memset(&pkt->route, 0, sizeof(pkt->route));
}

/*
 * The place of @pkt in its datagram, in the words of struct payload; 0 if it is all of it.
 * That of IPv4 is read where it stands when it is wanted, which is cheaper than to keep it.
 */
static __always_inline u32 packet_fragment(const struct packet *pkt)
{
	return FAMILY == 6 ? pkt->fragment : ip_fragment(pkt->ip);
}

/* Is @pkt the first one of several fragments? Others are handled apart. */
static __always_inline bool packet_is_fragment(const struct packet *pkt)
{
	return packet_fragment(pkt) & FRAGMENT_MORE;
}

/*
 * Find the headers of @pkt anew, where they were found before: with pointers that the verifier
 * knows nothing of but that both headers are in reach. It then need not tell apart the ways on
 * which they were found. False, which never happens, where they are not.
 */
static __always_inline bool packet_refresh(struct packet *pkt)
{
	u64 offset = (void *)pkt->ports - (void *)pkt->ip;
	u64 noise = pkt->now, length = pkt->length, is_tcp = pkt->is_tcp;
	struct xdp_md *ctx = pkt->ctx;

	forget(offset, noise);
	forget(length, noise);
	forget(is_tcp, noise);
	opaque(ctx);
	pkt->eth = (void *)(long)ctx->data;
	pkt->ip = (void *)(pkt->eth + 1);
	pkt->ports = (void *)pkt->ip + (offset & 0x3fff);
	pkt->length = length & 0xffff;
	pkt->is_tcp = is_tcp & 1;
	return (void *)(pkt->ip + 1) <= packet_end(ctx) &&
	       (void *)pkt->ports + sizeof(struct udp_header) <= packet_end(ctx);
}

/* Known when the program is compiled, unless both protocols are balanced. */
static __always_inline bool packet_is_tcp(const struct packet *pkt)
{
	return HAVE_TCP && (!HAVE_UDP || pkt->is_tcp);
}

/* Its number; without a branch, to verify. */
static __always_inline u8 packet_protocol(const struct packet *pkt)
{
	if (HAVE_UDP && HAVE_TCP)
		return PROTOCOL_UDP - (PROTOCOL_UDP - PROTOCOL_TCP) * pkt->is_tcp;
	return HAVE_TCP ? PROTOCOL_TCP : PROTOCOL_UDP;
}

/* The number of the balancer's address that @pkt came to. */
static __always_inline u32 packet_local(const struct packet *pkt)
{
	return MANY_SERVICES ? pkt->local : 0;
}

/* And of that which it leaves from. */
static __always_inline u32 route_local(const struct route *route)
{
	return MANY_SERVICES ? route->local : 0;
}

/* The number of the service that a request is for; without a branch, to verify. */
static __always_inline u32 packet_service(const struct packet *pkt)
{
	if (MANY_SERVICES)
		return pkt->service;
	return HAVE_UDP && HAVE_TCP ? pkt->is_tcp : HAVE_TCP;
}

static __always_inline struct udp_header *packet_udp(const struct packet *pkt)
{
	return (struct udp_header *)pkt->ports;
}

/*
 * The TCP header of @pkt, or NULL. Its bounds are checked anew, because the verifier
 * cannot tell which packets parse_packet() has checked them for.
 */
static __always_inline struct tcp_header *packet_tcp(const struct packet *pkt)
{
	struct tcp_header *tcp = (struct tcp_header *)pkt->ports;

	return (void *)(tcp + 1) > packet_end(pkt->ctx) ? NULL : tcp;
}

#endif
