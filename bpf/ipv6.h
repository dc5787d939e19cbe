/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is IPv6's own (RFC 8200): addresses, the header and those behind it, its ICMP
 * (RFC 4443). ipv4.h has the same names for IPv4.
 */
#ifndef XDPLB_IPV6_H
#define XDPLB_IPV6_H

#define ETHERTYPE_IP ETHERTYPE_IPV6
#define PROTOCOL_ICMP 58

/* As it lies in a packet, and is loaded from it. */
typedef struct {
	u64 word[2];
} address;

/* What the fragments of one datagram have in common, with the two addresses. */
typedef __be32 datagram_id;

struct ip_header {
	u32 version_flow;
	__be16 payload_length;
	u8 protocol;
	u8 ttl;
	address source;
	address destination;
};

/* The headers that may stand between, by their numbers. */
#define EXTENSION_HOP_BY_HOP 0
#define EXTENSION_ROUTING 43
#define EXTENSION_FRAGMENT 44
#define EXTENSION_DESTINATION 60

/* How many of them are stepped over. */
#define EXTENSIONS_MAX 6

/* What they begin with; @length is in units of 8 bytes beyond the first. */
struct extension_header {
	u8 protocol;
	u8 length;
	u8 type;
	u8 segments_left;
	u32 rest;
};

struct fragment_header {
	u8 protocol;
	u8 reserved;
	__be16 offset;
	datagram_id id;
};

static __always_inline bool address_is(address one, address other)
{
	return one.word[0] == other.word[0] && one.word[1] == other.word[1];
}

#if HAVE_TRACE
static __always_inline bool address_is_in(address value, address network, address mask)
{
	return (value.word[0] & mask.word[0]) == network.word[0] &&
	       (value.word[1] & mask.word[1]) == network.word[1];
}
#endif

static __always_inline address address_of(u64 word_0, u64 word_1)
{
	address value;

	value.word[0] = word_0;
	value.word[1] = word_1;
	return value;
}

static __always_inline u64 address_sum(address value)
{
	return (u64)(u32)value.word[0] + (value.word[0] >> 32) + (u32)value.word[1] +
	       (value.word[1] >> 32);
}

/* What @from changed to @to adds to a sum. */
static __always_inline u64 address_diff(address from, address to)
{
	from.word[0] = ~from.word[0];
	from.word[1] = ~from.word[1];
	return address_sum(from) + address_sum(to);
}

/* A word to look an address up by; it is not secret. */
static __always_inline u64 address_word(address value)
{
	u64 word = (value.word[0] * 0x9e3779b97f4a7c15ULL) ^ value.word[1];

	/* The last bytes of an address differ most, and would be multiplied out of the word. */
	return word ^ word >> 32;
}

/* The keyed hash of a packet's source. */
static __always_inline u64 hash_source(address source)
{
	return hash_word(hash_word(HASH_KEY_0, source.word[0]), source.word[1]);
}

/* The same, of both its addresses. */
static __always_inline u64 hash_addresses(address source, address destination)
{
	u64 hash = hash_source(source);

	return hash_word(hash_word(hash, destination.word[0]), destination.word[1]);
}

/* Who has one limit on flows (limit.h), hashed with the key: a network of 64 bits. */
static __always_inline u64 hash_subscriber(address source)
{
	return hash_word(HASH_KEY_0, source.word[0]);
}

static __always_inline bool subscriber_is(address one, address other)
{
	return one.word[0] == other.word[0];
}

/*
 * Is @source an address that an answer could be sent to? Not multicast, nor the loopback and
 * unspecified ones or an IPv4 address in disguise, which no packet may have (RFC 4291 2.5),
 * nor a link's own, which no router may pass on (2.5.6).
 */
static __always_inline bool address_is_sane(address source)
{
	u8 first = source.word[0], second = source.word[0] >> 8;

	return first != 0xff && !(first == 0xfe && (second & 0xc0) == 0x80) &&
	       (source.word[0] || ((u32)source.word[1] && (u32)source.word[1] != 0xffff0000));
}

/* The sum of the pseudo-header (RFC 8200 8.1); @length in the host's order. */
static __always_inline u64 csum_pseudo(address source, address destination, u8 protocol, u32 length)
{
	return address_sum(source) + address_sum(destination) + be16(protocol) + be16(length);
}

/* Bytes of the whole packet, as its header says; one that leaves that to an option is none. */
static __always_inline u32 ip_length(const struct ip_header *ip)
{
	return sizeof(struct ip_header) + host16(ip->payload_length);
}

/* That stands behind the header: see ip_walk(). */
static __always_inline u32 ip_fragment(const struct ip_header *ip)
{
	return 0;
}

/*
 * Step over the headers up to that of UDP, TCP or ICMP, or up to a fragment that has none.
 * False where they are cut off, too many, or steer the packet elsewhere.
 */
static __always_inline bool ip_walk(struct xdp_md *ctx, struct ip_header *ip,
				    struct payload *payload)
{
	u64 offset = sizeof(*ip), protocol = ip->protocol;
	u64 fragment = 0, id = 0, id_at = 0, noise = ip->source.word[1];
	bool is_done = false;

#pragma clang loop unroll(disable)
	for (u32 step = 0; step <= EXTENSIONS_MAX; step++) {
		struct extension_header *extension;

		is_done = protocol != EXTENSION_HOP_BY_HOP && protocol != EXTENSION_ROUTING &&
			  protocol != EXTENSION_FRAGMENT && protocol != EXTENSION_DESTINATION;
		if (is_done || fragment & FRAGMENT_OFFSET)
			break;
		forget(offset, noise);
		offset &= 0x3fff;
		extension = (void *)ip + offset;
		if ((void *)(extension + 1) > packet_end(ctx))
			return false;
		if (protocol == EXTENSION_FRAGMENT) {
			struct fragment_header *header = (void *)extension;
			u32 place = be16(header->offset);

			if (id_at)
				return false;
			fragment = place >> 3 | (place & 1 ? FRAGMENT_MORE : 0);
			id = header->id;
			id_at = offset;
			offset += sizeof(*header);
		} else {
			if (protocol == EXTENSION_ROUTING && extension->segments_left)
				return false;
			offset += (extension->length + 1) * 8;
		}
		protocol = extension->protocol;
	}
	if ((ip->version_flow & 0xf0) != 0x60 || !(is_done || fragment & FRAGMENT_OFFSET))
		return false;
	forget(offset, noise);
	forget(fragment, noise);
	forget(protocol, noise);
	protocol &= 0xff;
	opaque(protocol);
	forget(id, noise);
	forget(id_at, noise);
	payload->start = (void *)ip + (offset & 0x3fff);
	payload->id = id;
	payload->id_at = id_at & 0x3fff;
	payload->fragment = fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE);
	payload->protocol = protocol;
	return true;
}

/* One hop less; nothing in the header notices what else changes. */
static __always_inline void ip_hop(struct ip_header *ip, u64 diff)
{
	ip->ttl--;
}

/* The addresses of a quoted header have changed by @diff; returns what that adds to a sum. */
static __always_inline u64 ip_mend_quote(struct ip_header *ip, u64 diff)
{
	return diff;
}

/* The header has no checksum. */
static __always_inline bool ip_is_sound(struct xdp_md *ctx, struct ip_header *ip)
{
	return true;
}

/* Routers do not fragment IPv6. */
static __always_inline bool ip_may_fragment(const struct ip_header *ip)
{
	return false;
}

/* That stands behind the header, too. */
static __always_inline datagram_id ip_id(const struct ip_header *ip)
{
	return 0;
}

static __always_inline datagram_id datagram_id_of(u64 number)
{
	return __builtin_bswap32(number);
}

/* Give the datagram of @ip, with its fragment header at @id_at, another identification. */
static __always_inline void ip_set_id(struct xdp_md *ctx, struct ip_header *ip, u32 id_at,
				      datagram_id id)
{
	struct fragment_header *fragment;

	opaque(id_at);
	fragment = (void *)ip + (id_at & 0x3fff);
	if (id_at && (void *)(fragment + 1) <= packet_end(ctx))
		fragment->id = id;
}

#define ICMP_UNREACHABLE 1
#define ICMP_PORT_UNREACHABLE 4
#define ICMP_PACKET_TOO_BIG 2
#define ICMP_TIME_EXCEEDED 3
#define ICMP_PARAMETER_PROBLEM 4

/* Blocks of 32 bytes that an error may have: its packet is at most 1280 bytes (RFC 4443 2.4). */
#define ICMP_BLOCKS 39

static __always_inline bool icmp_is_error(u8 type)
{
	return type >= ICMP_UNREACHABLE && type <= ICMP_PARAMETER_PROBLEM;
}

/* What the addresses of a message add to its checksum. */
static __always_inline u64 icmp_pseudo(address source, address destination, u32 length)
{
	return csum_pseudo(source, destination, PROTOCOL_ICMP, length);
}

/* What a change of its addresses by @diff adds to it. */
static __always_inline u64 icmp_pseudo_diff(u64 diff)
{
	return diff;
}

/* How much of a packet of @length bytes an error quotes: what its own 1280 leave room for. */
static __always_inline u32 icmp_quotes(u32 length, u32 header)
{
	u32 most = 1280 - sizeof(struct ip_header) - sizeof(struct icmp_header);

	return length < most ? length : most;
}

/* Packet too big, for a way that takes no more than @mtu bytes (RFC 4443 3.2). */
static __always_inline void icmp_too_big(struct icmp_header *icmp, u32 mtu)
{
	icmp->type = ICMP_PACKET_TOO_BIG;
	icmp->code = 0;
	icmp->rest = __builtin_bswap32(mtu);
}

/* Write the header of an ICMP message of @length bytes from @source to @destination. */
static __always_inline void ip_compose(struct xdp_md *ctx, struct ip_header *ip, u32 length,
				       address source, address destination)
{
	ip->version_flow = 0x60;
	ip->payload_length = be16(length);
	ip->protocol = PROTOCOL_ICMP;
	ip->ttl = 64;
	ip->source = source;
	ip->destination = destination;
}

#endif
