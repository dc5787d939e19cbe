/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers as they lie on the wire, whatever carries them, and what keeps the verifier
 * content about pointers into a packet.
 */
#ifndef XDPLB_HEADERS_H
#define XDPLB_HEADERS_H

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words of several bytes are put together for little-endian machines"
#endif

#define be16(x) ((__be16)__builtin_bswap16(x))

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

struct eth_header {
	u8 destination[6];
	u8 source[6];
	__be16 type;
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

/* RFC 792, RFC 4443; behind it, an error quotes the packet that it is about. */
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

/* A fragment's place: its offset in units of 8 bytes, and whether others follow. */
#define FRAGMENT_OFFSET 0x1fff
#define FRAGMENT_MORE 0x2000

/*
 * What stands behind the IP header: UDP, TCP, ICMP, or a part of it. @id is what the
 * fragments of one datagram have in common; for IPv6, @id_at is where that stands.
 */
struct payload {
	void *start;
	u32 id;
	u32 id_at;
	u16 fragment;
	u64 protocol; /* a whole register, so that the verifier sees that it stays the same */
};

/*
 * Keeps the compiler from computing with @value beforehand: from rearranging a walk over
 * packet bytes past the verifier's grasp, or from moving a pointer that must not move.
 */
#define opaque(value) asm volatile("" : "+r"(value))

/*
 * Makes the verifier forget what it knows of @value: XOR twice with @noise, of which it knows
 * nothing. Paths that differ only in that are one path from there on.
 */
#define forget(value, noise) asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(value) : "r"(noise))

/* @value as a number. Not every verifier knows that a swap of 16 bits leaves 16 bits. */
static __always_inline u64 host16(__be16 value)
{
	u64 number = be16(value);

	opaque(number);
	return number & 0xffff;
}

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

#endif
