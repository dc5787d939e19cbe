/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Keys and values of the maps. Here is their only definition; xdplb/wire.py has
 * the same layouts for Python, and a test compares the two. Records with addresses are
 * longer for IPv6; where they are read per packet, none crosses a cache line for nothing.
 *
 * Addresses, __be16 and __be32 are in network order, everything else in the host's.
 */
#ifndef XDPLB_TYPES_H
#define XDPLB_TYPES_H

/* Numbers that stand for "none". */
#define NO_BACKEND 0xffff
#define NO_SERVICE 0xff
#define NO_ADDRESS 0xff

/*
 * enum backend_state: may it get new flows, and may it keep its old ones? Those of a backend
 * that is held are neither sent there nor elsewhere.
 */
enum backend_state {
	BACKEND_UNUSED,
	BACKEND_UP,
	BACKEND_DRAIN,
	BACKEND_DOWN,
	BACKEND_HELD,
};

/* Bytes to fill a record up with: as many for IPv4, as many for IPv6. */
#define RESERVED(ipv4, ipv6) u8 reserved[FAMILY == 6 ? ipv6 : ipv4]
#define SIZE_IS(type, ipv4, ipv6) _Static_assert(sizeof(type) == (FAMILY == 6 ? ipv6 : ipv4), #type)

/*
 * One server, by its number, one cache line.
 *
 * @mac is the next hop's, in the low six bytes of the word as they lie in a frame,
 * so that it is read and written whole; 0 while nobody has answered for it.
 * @port is 0 where the client's destination port is kept. A server has a record for each
 * service that it answers, by @service, and for each address that it is spoken to from, by
 * @local.
 * @slot_first and @slot_count are its part of reverse_lookup.
 * @next_neighbour is the next backend behind the same next hop, or NO_BACKEND.
 * @tag is that of the VLAN that it is in, as it lies in a frame; 0 if it is in none, or in that
 * of the client.
 */
struct backend {
	u64 mac;
	address address;
	u32 slot_first;
	u32 slot_count;
	__be16 port;
	u16 weight;
	u16 next_neighbour;
	u8 interface;
	u8 mac_is_fixed;
	u8 state;
	u8 generation;
	u8 service;
	u8 local;
	u32 tag;
	address next_hop;
	RESERVED(24, 0);
};

SIZE_IS(struct backend, 64, 64);

/*
 * What a client's datagram says of its flow. @number is the service's; a reservation leaves
 * @service_port 0, for any of it.
 */
struct client_key {
	address client;
	address service;
	__be16 client_port;
	__be16 service_port;
	u8 protocol;
	u8 number;
	u8 reserved[2];
};

SIZE_IS(struct client_key, 16, 40);

/* Where the flow went; its record in reverse_lookup knows the rest. */
struct client_value {
	__be16 nat_port;
	u16 backend;
	u8 reserved[4];
};

SIZE_IS(struct client_value, 8, 8);

/*
 * The state of a record in reverse_lookup, in the owner word. Those of TCP say what the
 * two ends have shown: no packet of a third party can end a connection (see tcp.h).
 */
enum flow_state {
	FLOW_FREE,
	FLOW_CLAIMED, /* being filled in; not yet a flow */
	FLOW_UNREPLIED,
	FLOW_ANSWERED,
	FLOW_RESERVED, /* from Python; never expires */
	TCP_OPENING,   /* the client has sent a SYN */
	TCP_ACCEPTED,  /* the backend has answered it */
	TCP_ESTABLISHED,
	TCP_CLIENT_FIN,
	TCP_BACKEND_FIN,
	TCP_CLOSING, /* both have sent a FIN */
	TCP_CLIENT_RST,
	TCP_BACKEND_RST,
};

/*
 * The flow itself, at the index that its backend and its NAT port make.
 *
 * @owner is the one word that claims, refreshes and frees the record, always by
 * compare-and-swap: last_seen tick (32 bits), backend (16), state (8), generation
 * (8), from the low end up. Everything below it belongs to whoever set it.
 * @interface is where the client was last seen, @client_mac who brought it, and @tags are
 * those of its VLAN. @service is what it dialled.
 */
struct flow {
	u64 owner;
	u8 client_mac[6];
	u8 interface;
	u8 service;
	u64 tags;
	address client;
	__be16 client_port;
	__be16 service_port;
	RESERVED(0, 20);
};

SIZE_IS(struct flow, 32, 64);

/* The part of reverse_lookup that answers from one backend address fall into. */
struct slot_range {
	u32 first;
	u32 count;
};

#define BUCKET_SIZE 4

/*
 * Backend addresses with the same hash, each with its protocol and the number of the address
 * that it answers to, in whole cache lines; an empty place is 0. Where one bucket has no place
 * left, @continues is set and the next bucket has the others.
 */
struct address_bucket {
	address address[BUCKET_SIZE];
	struct slot_range slots[BUCKET_SIZE];
	u8 protocol[BUCKET_SIZE];
	u8 local[BUCKET_SIZE];
	u32 continues;
	RESERVED(4, 20);
};

SIZE_IS(struct address_bucket, 64, 128);

/* What the numbers of services end in: those of UDP are even, and those of TCP odd. */
#define SERVICE_UDP 0
#define SERVICE_TCP 1

/* Which of the timeouts is whose. */
enum timeout {
	TIMEOUT_UNREPLIED,
	TIMEOUT_ANSWERED,
	TIMEOUT_TRANSITORY,
	TIMEOUT_ESTABLISHED,
	TIMEOUT_MAX,
};

/*
 * One service: which of its two Maglev tables counts. And for programs with many services:
 * @local, the number of the address that clients dial, what is hashed, and the idle ticks after
 * which its flows may be taken over.
 */
struct service {
	u32 table;
	u8 local;
	u8 hash;
	u8 reserved[2];
	u32 timeouts[TIMEOUT_MAX];
};

_Static_assert(sizeof(struct service) == 24, "struct service");

/* How many ports one value of service_ports is about, each with a service's number. */
#define PORT_BLOCK 256

/* One interface of the balancer, by its slot; @mac as in struct backend. */
struct interface {
	u64 mac;
	u32 ifindex;
	u32 redirect; /* leave by bpf_redirect() even where the packet came in here */
	u32 mtu;      /* bytes of an IP packet */
	u32 reserved;
};

_Static_assert(sizeof(struct interface) == 24, "struct interface");

/* What all fragments of a datagram have in common (RFC 791, RFC 8200); IPv6 names no protocol. */
struct fragment_key {
	address source;
	address destination;
	datagram_id id;
	u8 protocol;
	RESERVED(1, 3);
};

SIZE_IS(struct fragment_key, 12, 40);

/*
 * Where the first fragment of a datagram went, for the others, which do not say their
 * ports. @id is the new one, @seen the tick, @verdict what the first one was counted as, and
 * @local the number of the address that it left from.
 */
struct fragment {
	u64 mac;
	u64 tags;
	address destination;
	u32 seen;
	datagram_id id;
	u16 backend;
	u8 interface;
	u8 local;
	u8 verdict;
	u8 protocol;
	RESERVED(0, 2);
};

SIZE_IS(struct fragment, 32, 48);

/* Per CPU: how many ICMP errors were sent in the tick. */
struct reply_limit {
	u32 tick;
	u32 sent;
};

_Static_assert(sizeof(struct reply_limit) == 8, "struct reply_limit");

/*
 * Per CPU. In is toward the backend, out is from it; bytes are of IP packets. @refused are the
 * ICMP errors that say that nobody is there.
 */
struct backend_stats {
	u64 packets_in;
	u64 bytes_in;
	u64 packets_out;
	u64 bytes_out;
	u64 refused;
};

_Static_assert(sizeof(struct backend_stats) == 40, "struct backend_stats");

/*
 * A packet, for `xdplb trace`: the head of it as it came, and as it leaves. @time is of the
 * monotonic clock, in nanoseconds; the lengths are of the whole frames, and @length_out is 0 where
 * none leaves.
 */
struct trace_event {
	u64 time;
	u32 ifindex;
	u32 length_in;
	u32 length_out;
	u8 verdict;
	u8 is_new; /* it has opened a flow */
	u8 reserved[2];
	u8 frame_in[TRACE_SNAP];
	u8 frame_out[TRACE_SNAP];
};

/*
 * Per CPU: the packet in hand, and what of it a filter is about; @lost are those that there was
 * no room for.
 */
struct trace {
	u64 lost;
	struct trace_event event;
	address source;
	address destination;
	__be16 source_port;
	__be16 destination_port;
	bool is_on;
	bool has_client;
	bool is_sent;
	RESERVED(24, 0); /* the map is for both IP versions */
};

#endif
