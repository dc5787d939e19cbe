/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which packets are for the service, and which backend gets a new flow.
 */
#ifndef XDPLB_SELECT_H
#define XDPLB_SELECT_H

/* Is @port (host order) one of the service's? */
static __always_inline bool service_has_port(u32 port)
{
#define RANGE(first, last) || (port - (first) <= (last) - (first))
	return false SERVICE_PORTS(RANGE);
#undef RANGE
}

/* Ports and protocol of @pkt, as they are hashed. */
static __always_inline u64 ports_word(const struct packet *pkt)
{
	return (u64)pkt->ports->source << 32 | (u64)pkt->ports->destination << 16 |
	       packet_protocol(pkt);
}

/* The hash that chooses a backend, by its upper half. */
static __always_inline u64 hash_packet(const struct packet *pkt)
{
	u64 hash = SERVICE_HASH == HASH_SRC ? hash_source(pkt->ip->source)
					    : hash_addresses(pkt->ip->source, pkt->ip->destination);

	if (SERVICE_HASH == HASH_5_TUPLE)
		hash = hash_word(hash, ports_word(pkt));
	return hash;
}

/* The hash that says where among its backend's records the flow of @pkt has its home. */
static __always_inline u32 hash_flow(const struct packet *pkt, u64 hash)
{
	return hash_word(hash, ports_word(pkt)) >> 32;
}

/* The backend for a new flow of @pkt's client, whose addresses have @hash, or NO_BACKEND. */
static __always_inline u32 select_backend(const struct packet *pkt, u64 hash)
{
	u32 number = packet_is_tcp(pkt) ? SERVICE_TCP : SERVICE_UDP;
	struct service *service = services.lookup(&number);
	u16 *table;
	u32 slot;

	if (!service)
		return NO_BACKEND;
	number = service->table;
	table = maglev.lookup(&number);
	if (!table)
		return NO_BACKEND;
	slot = (hash >> 32) * MAGLEV_SIZE >> 32;
	return table[slot];
}

#endif
