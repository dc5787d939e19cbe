/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers as they lie on the wire, and what the walk knows of the packet in hand.
 */
#ifndef XDPLB_PACKET_H
#define XDPLB_PACKET_H

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words of several bytes are put together for little-endian machines"
#endif

#define be16(x) ((__be16)__builtin_bswap16(x))

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff

struct eth_header {
	u8 destination[6];
	u8 source[6];
	__be16 type;
};

/* RFC 791. */
struct ipv4_header {
	u8 version_ihl;
	u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 protocol;
	u16 check;
	__be32 source;
	__be32 destination;
};

/* RFC 768. */
struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	u16 check;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* RFC 9293. */
struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledgement;
	u8 offset;
	u8 flags;
	__be16 window;
	u16 check;
	__be16 urgent;
};

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

/* RFC 792; behind it, an error quotes the packet that it is about. */
struct icmp_header {
	u8 type;
	u8 code;
	u16 check;
	u32 rest;
};

/* What UDP and TCP begin with. */
struct port_header {
	__be16 source;
	__be16 destination;
};

/* RFC 826, for IPv4 over Ethernet. */
struct arp_packet {
	__be16 hardware_type;
	__be16 protocol_type;
	u8 hardware_length;
	u8 protocol_length;
	__be16 operation;
	u8 sender_mac[6];
	u8 sender_address[4];
	u8 target_mac[6];
	u8 target_address[4];
};

/*
 * Keeps the compiler from computing with @value beforehand: from rearranging a walk over
 * packet bytes past the verifier's grasp, or from moving a pointer that must not move.
 */
#define opaque(value) asm volatile("" : "+r"(value))

/* Where the packet ends. */
static __always_inline void *packet_end(struct xdp_md *ctx)
{
	void *end;

	opaque(ctx);
	end = (void *)(long)ctx->data_end;
	opaque(end);
	return end;
}

/*
 * A MAC address as a word: its six bytes as they lie in a frame, in the low end. @mac is
 * read together with the two bytes behind it, which every place here has.
 */
static __always_inline u64 mac_word(const u8 *mac)
{
	return *(const u64 *)mac & 0xffffffffffffULL;
}

/* Where a packet of the service is to go, and as whom. The two MAC addresses are words. */
struct route {
	u64 source_mac;
	u64 destination_mac;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	u32 ifindex;
	u16 interface;
	u16 backend;
	bool redirect;
};

/*
 * The packet in hand. parse_packet() has checked the bounds of every header that a
 * pointer here leads to, but for that of TCP: see packet_tcp(). @interface is the slot it
 * came in by; @now is in ticks. What a step has not reached yet is not set, so that leaving
 * early costs nothing.
 */
struct packet {
	struct xdp_md *ctx;
	struct eth_header *eth;
	struct ipv4_header *ip;
	struct port_header *ports;
	u32 ip_length;	  /* bytes, IP header and payload */
	u32 room;	  /* bytes of IP payload */
	u32 length;	  /* bytes of UDP or TCP, as its checksum covers them */
	bool is_tcp;	  /* ask packet_is_tcp() */
	bool is_icmp;	  /* then @ports leads to the ICMP header */
	bool is_fragment; /* the first one of several */
	bool is_tail;	  /* another one: it has no ports */
	u16 interface;
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

/* Known when the program is compiled, unless both protocols are balanced. */
static __always_inline bool packet_is_tcp(const struct packet *pkt)
{
	return HAVE_TCP && (!HAVE_UDP || pkt->is_tcp);
}

static __always_inline u8 packet_protocol(const struct packet *pkt)
{
	return packet_is_tcp(pkt) ? PROTOCOL_TCP : PROTOCOL_UDP;
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
