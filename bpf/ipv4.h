/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is IPv4's own (RFC 791): addresses, the header, its checksum, its ICMP. ipv6.h has
 * the same names for IPv6; everything else is written once for both.
 */
#ifndef XDPLB_IPV4_H
#define XDPLB_IPV4_H

#define ETHERTYPE_IP ETHERTYPE_IPV4
#define PROTOCOL_ICMP 1

/* As it lies in a packet, and is loaded from it. */
typedef __be32 address;

/* What the fragments of one datagram have in common, with the two addresses. */
typedef __be16 datagram_id;

struct ip_header {
	u8 version_ihl;
	u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 protocol;
	u16 check;
	address source;
	address destination;
};

#define IPV4_DONT_FRAGMENT 0x4000

static __always_inline bool address_is(address one, address other)
{
	return one == other;
}

#if HAVE_TRACE
/* Is @value what @network is, where @mask says that it counts? */
static __always_inline bool address_is_in(address value, address network, address mask)
{
	return (value & mask) == network;
}
#endif

static __always_inline address address_of(u64 word_0, u64 word_1)
{
	return word_0;
}

/* What @from changed to @to adds to a sum. */
static __always_inline u64 address_diff(address from, address to)
{
	return (u64)(u32)~from + to;
}

/* A word to look an address up by; it is not secret. */
static __always_inline u64 address_word(address value)
{
	return value;
}

/* The keyed hash of a packet's addresses. */
static __always_inline u64 hash_addresses(address source, address destination)
{
	return hash_word(HASH_KEY_0, (u64)source << 32 | destination);
}

/* The same, of its source only. */
static __always_inline u64 hash_source(address source)
{
	return hash_addresses(source, 0);
}

/* Who has one limit on flows (limit.h), hashed with the key: an address. */
static __always_inline u64 hash_subscriber(address source)
{
	return hash_source(source);
}

static __always_inline bool subscriber_is(address one, address other)
{
	return one == other;
}

/*
 * Is @source an address that an answer could be sent to? Not 0/8, loopback, multicast
 * and above (RFC 1122 3.2.1.3).
 */
static __always_inline bool address_is_sane(address source)
{
	u8 first = *(u8 *)&source;

	return first != 0 && first != 127 && first < 224;
}

/* The sum of the pseudo-header of RFC 768 and RFC 9293; @length in the host's order. */
static __always_inline u64 csum_pseudo(address source, address destination, u8 protocol, u32 length)
{
	return (u64)source + destination + be16(protocol) + be16(length);
}

/* Bytes of the whole packet, as its header says. */
static __always_inline u32 ip_length(const struct ip_header *ip)
{
	return host16(ip->total_length);
}

/* The packet's place in its datagram, in the words of struct payload. */
static __always_inline u32 ip_fragment(const struct ip_header *ip)
{
	return be16(ip->fragment) & (FRAGMENT_OFFSET | FRAGMENT_MORE);
}

/* Step over the header with its options. False where it is none. */
static __always_inline bool ip_walk(struct xdp_md *ctx, struct ip_header *ip,
				    struct payload *payload)
{
	u32 header_length = (ip->version_ihl & 0xf) * 4;

	payload->start = (void *)ip + header_length;
	payload->protocol = ip->protocol;
	payload->fragment = ip_fragment(ip);
	payload->id = ip->id;
	payload->id_at = 0;
	return ip->version_ihl >> 4 == 4 && header_length >= sizeof(struct ip_header);
}

/* One hop less, and the checksum mended; @diff is what else has changed in the header. */
static __always_inline void ip_hop(struct ip_header *ip, u64 diff)
{
	/* A TTL less by 1 makes its word less by 1: 0xfffe in one's complement. */
	ip->ttl--;
	ip->check = csum_apply(ip->check, diff + 0xfffe);
}

/* The addresses of a quoted header have changed by @diff; returns what that adds to a sum. */
static __always_inline u64 ip_mend_quote(struct ip_header *ip, u64 diff)
{
	u16 before = ip->check;

	ip->check = csum_apply(before, diff);
	return diff + csum_diff16(before, ip->check);
}

/* The most 32-bit words of a header. */
#define IPV4_WORDS 15

/* Add the header at @ip to @sum; false where it is not all there. */
static __always_inline bool csum_add_header(struct xdp_md *ctx, struct ip_header *ip, u64 *sum)
{
	u64 count = ip->version_ihl & 0xf, noise = ip->source;
	u32 *word = (u32 *)ip;

	forget(count, noise);
#pragma clang loop unroll(disable)
	for (u32 done = 0; done < IPV4_WORDS; done++) {
		opaque(word);
		opaque(count);
		if (done >= count)
			break;
		if ((void *)(word + 1) > packet_end(ctx))
			return false;
		*sum += *word;
		word++;
	}
	return true;
}

/* Is the header's own checksum right? */
static __always_inline bool ip_is_sound(struct xdp_md *ctx, struct ip_header *ip)
{
	u64 sum = 0;

	return csum_add_header(ctx, ip, &sum) && csum_fold(sum) == 0xffff;
}

/* May a router fragment the packet where it is too big? */
static __always_inline bool ip_may_fragment(const struct ip_header *ip)
{
	return !(ip->fragment & be16(IPV4_DONT_FRAGMENT));
}

static __always_inline datagram_id ip_id(const struct ip_header *ip)
{
	return ip->id;
}

static __always_inline datagram_id datagram_id_of(u64 number)
{
	return be16(number & 0xffff);
}

/* Give the datagram of @ip another identification. */
static __always_inline void ip_set_id(struct xdp_md *ctx, struct ip_header *ip, u32 id_at,
				      datagram_id id)
{
	ip->check = csum_apply(ip->check, csum_diff16(ip->id, id));
	ip->id = id;
}

#define ICMP_UNREACHABLE 3
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

/* Blocks of 32 bytes that an error may have: it is at most 576 bytes (RFC 1812 4.3.2.3). */
#define ICMP_BLOCKS 20

static __always_inline bool icmp_is_error(u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

/* What the addresses of a message add to its checksum. */
static __always_inline u64 icmp_pseudo(address source, address destination, u32 length)
{
	return 0;
}

/* What a change of its addresses by @diff adds to it. */
static __always_inline u64 icmp_pseudo_diff(u64 diff)
{
	return 0;
}

/* How much of a packet of @length bytes, with @header of them in front, an error quotes. */
static __always_inline u32 icmp_quotes(u32 length, u32 header)
{
	return header + 8;
}

/* Fragmentation needed, for a way that takes no more than @mtu bytes (RFC 1191). */
static __always_inline void icmp_too_big(struct icmp_header *icmp, u32 mtu)
{
	icmp->type = ICMP_UNREACHABLE;
	icmp->code = 4;
	icmp->rest = (u32)be16(mtu) << 16;
}

/* Write the header of an ICMP message of @length bytes from @source to @destination. */
static __always_inline void ip_compose(struct xdp_md *ctx, struct ip_header *ip, u32 length,
				       address source, address destination)
{
	u64 sum = 0;

	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->total_length = be16(sizeof(*ip) + length);
	ip->id = 0;
	ip->fragment = be16(IPV4_DONT_FRAGMENT);
	ip->ttl = 64;
	ip->protocol = PROTOCOL_ICMP;
	ip->check = 0;
	ip->source = source;
	ip->destination = destination;
	csum_add_header(ctx, ip, &sum);
	ip->check = ~csum_fold(sum);
}

#endif
