/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which packets are for a service, and which backend gets a new flow.
 */
#ifndef XDPLB_SELECT_H
#define XDPLB_SELECT_H

/* Is @port (host order) one of the only service's? */
static __always_inline bool service_has_port(u32 port)
{
#define RANGE(first, last) || (port - (first) <= (last) - (first))
	return false SERVICE_PORTS(RANGE);
#undef RANGE
}

/* The number of the service at @port of own address number @local; NO_SERVICE without one. */
static __always_inline u32 service_find(u32 local, bool is_tcp, __be16 port)
{
	u32 index = (local << 1 | is_tcp) << 8 | be16(port) / PORT_BLOCK;
	u8 *block;

	if (!MANY_SERVICES) {
		if (!service_has_port(be16(port)))
			return NO_SERVICE;
		return SERVICE_UDP + (SERVICE_TCP - SERVICE_UDP) * is_tcp;
	}
	block = service_ports.lookup(&index);
	return block ? block[be16(port) % PORT_BLOCK] : NO_SERVICE;
}

/* Ports and protocol of @pkt, as they are hashed. */
static __always_inline u64 ports_word(const struct packet *pkt)
{
	return (u64)pkt->ports->source << 32 | (u64)pkt->ports->destination << 16 |
	       packet_protocol(pkt);
}

/* What is hashed for service number @number. */
static __always_inline u32 service_hash(u32 number)
{
	struct service *service;

	if (!MANY_SERVICES)
		return SERVICE_HASH;
	service = services.lookup(&number);
	return service ? service->hash : HASH_SRC_DST;
}

/* The hash that chooses a backend of service number @number, by its upper half. */
static __always_inline u64 hash_packet(const struct packet *pkt, u32 number)
{
	u32 kind = service_hash(number);
	u64 hash = kind == HASH_SRC ? hash_source(pkt->ip->source)
				    : hash_addresses(pkt->ip->source, pkt->ip->destination);

	if (kind == HASH_5_TUPLE)
		hash = hash_word(hash, ports_word(pkt));
	return hash;
}

/* The hash that says where among its backend's records the flow of @pkt has its home. */
static __always_inline u32 hash_flow(const struct packet *pkt, u64 hash)
{
	return hash_word(hash, ports_word(pkt)) >> 32;
}

/* The backend of service number @number for a new flow of a packet with @hash, or NO_BACKEND. */
static __always_inline u32 select_backend(u32 number, u64 hash)
{
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
