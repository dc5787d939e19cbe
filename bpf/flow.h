/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The flow table: find a flow from either side, open one, keep it fresh.
 *
 * A record in reverse_lookup owns the flow; its entry in client_port is the index. A
 * flow lies at its home if it can: at one of the places that its hash says. Most flows
 * are found there without the index.
 *
 * Whoever wins the compare-and-swap of a record's owner word may change the rest of it
 * and its index. Only a record that has been idle for a timeout may be taken over, and
 * whoever uses a record that has been idle for a second renews it first: so nobody uses
 * a record while somebody else takes it.
 */
#ifndef XDPLB_FLOW_H
#define XDPLB_FLOW_H

static __always_inline u64 owner_word(u32 seen, u32 backend, u32 state, u32 generation)
{
	return (u64)seen | (u64)backend << 32 | (u64)state << 48 | (u64)generation << 56;
}

static __always_inline u32 owner_seen(u64 owner)
{
	return owner;
}

static __always_inline u32 owner_backend(u64 owner)
{
	return owner >> 32 & 0xffff;
}

static __always_inline u32 owner_state(u64 owner)
{
	return owner >> 48 & 0xff;
}

/* @owner's word again, with another state, seen at @now. */
static __always_inline u64 owner_renew(u64 owner, u32 state, u32 now)
{
	return (owner & 0xff00ffff00000000ULL) | (u64)state << 48 | now;
}

/* Is there a flow at all? */
static __always_inline bool owner_is_flow(u64 owner)
{
	return owner_state(owner) >= FLOW_UNREPLIED;
}

/* Was the flow opened toward @backend, number @number, and not toward one that had it before? */
static __always_inline bool owner_is_toward(u64 owner, const struct backend *backend, u32 number)
{
	return owner_backend(owner) == number && owner >> 56 == backend->generation;
}

/* Which of the four timeouts is whose: two bits a state. */
#define TIMEOUT_OF(state, number) ((u32)(number) << 2 * (state))
#define TIMEOUTS                                                                                   \
	(TIMEOUT_OF(FLOW_ANSWERED, 1) | TIMEOUT_OF(TCP_OPENING, 2) | TIMEOUT_OF(TCP_ACCEPTED, 2) | \
	 TIMEOUT_OF(TCP_ESTABLISHED, 3) | TIMEOUT_OF(TCP_CLIENT_FIN, 3) |                          \
	 TIMEOUT_OF(TCP_BACKEND_FIN, 3) | TIMEOUT_OF(TCP_CLOSING, 2) |                             \
	 TIMEOUT_OF(TCP_CLIENT_RST, 2) | TIMEOUT_OF(TCP_BACKEND_RST, 2))

/* Idle ticks after which a record in @state may be taken over; without a branch, to verify. */
static __always_inline s32 flow_timeout(u32 state)
{
	u64 udp = UNREPLIED_TICKS | (u64)ANSWERED_TICKS << 32;
	u64 tcp = TRANSITORY_TICKS | (u64)ESTABLISHED_TICKS << 32;
	u64 number = TIMEOUTS >> (state * 2 & 31);

	return (HAVE_TCP ? udp + (tcp - udp) * (number >> 1 & 1) : udp) >> (number & 1) * 32;
}

/* For how many ticks the record of @owner could have been given away; below 1, it cannot be. */
static __always_inline s64 owner_overdue(u64 owner, u32 now)
{
	s32 idle = now - owner_seen(owner);
	u32 state = owner_state(owner);

	if (state == FLOW_FREE)
		return REST_TICKS + 1;
	return state == FLOW_RESERVED ? 0 : (s64)idle - flow_timeout(state);
}

/* May the record of @owner be given to somebody else? */
static __always_inline bool owner_is_free(u64 owner, u32 now)
{
	return owner_overdue(owner, now) > 0;
}

/* NAT port (host order) -> offset in the pool; false where it is not in the pool. */
static __always_inline bool nat_offset(u32 port, u32 *offset)
{
#define RANGE(first, last, start)                   \
	if (port - (first) <= (last) - (first)) {   \
		*offset = port - (first) + (start); \
		return true;                        \
	}
	NAT_PORTS(RANGE)
#undef RANGE
	return false;
}

/* Offset in the pool -> NAT port; 0 beyond the pool. */
static __always_inline __be16 nat_port(u32 offset)
{
#define RANGE(first, last, start)                 \
	if (offset - (start) <= (last) - (first)) \
		return be16(offset - (start) + (first));
	NAT_PORTS(RANGE)
#undef RANGE
	return 0;
}

/* The record of @port toward @backend, or NULL. */
static __always_inline struct flow *flow_at(const struct backend *backend, __be16 port)
{
	u32 index;

	if (!nat_offset(be16(port), &index) || index >= backend->slot_count)
		return NULL;
	index += backend->slot_first;
	return reverse_lookup.lookup(&index);
}

/* What the client at the other end of @pkt would be found by. */
static __always_inline struct client_key client_key(const struct packet *pkt, __be16 service_port)
{
	struct client_key key = {
		.client = pkt->ip->source,
		.service = service_address(),
		.client_port = pkt->ports->source,
		.service_port = service_port,
		.protocol = packet_protocol(pkt),
	};

	return key;
}

static __always_inline bool flow_is_of(const struct flow *flow, const struct client_key *key)
{
	return address_is(flow->client, key->client) && flow->client_port == key->client_port &&
	       (flow->service_port == key->service_port ||
		(HAVE_RESERVATIONS && owner_state(flow->owner) == FLOW_RESERVED));
}

/* Where @pkt came from: the MAC address of whom, and the interface; one word. */
static __always_inline u64 packet_place(const struct packet *pkt)
{
	return mac_word(pkt->eth->source) | (u64)pkt->interface << 48;
}

/* The client is at @place, with @tags, where its last packet came from. */
static __always_inline void flow_learn_client(struct flow *flow, u64 place, u64 tags)
{
	if (*(u64 *)flow->client_mac != place)
		*(u64 *)flow->client_mac = place;
	if (HAVE_VLAN && flow->tags != tags)
		flow->tags = tags;
}

/* The client of a reservation dials @port now: answers come from there. */
static __always_inline void flow_set_service_port(struct flow *flow, __be16 port)
{
	if (flow->service_port != port)
		flow->service_port = port;
}

/* The state of a flow after @pkt, which was @state before. */
static __always_inline u32 flow_after(const struct packet *pkt, u32 state, bool from_client)
{
	struct tcp_header *tcp;

	if (state == FLOW_CLAIMED || (HAVE_RESERVATIONS && state == FLOW_RESERVED))
		return state;
	if (!packet_is_tcp(pkt))
		return from_client ? state : FLOW_ANSWERED;
	tcp = packet_tcp(pkt);
	return tcp ? tcp_after(state, tcp->flags, from_client) : state;
}

/*
 * @pkt is about to use @flow, whose owner word was @owner: say so in the record, if there
 * is anything new to say. False where somebody else has just taken the record over.
 *
 * Another CPU may renew the record at the same time. Then TCP tries once more, since the
 * two may have seen different things. Only a record that had timed out can have been
 * taken over.
 */
static __always_inline bool flow_touch(const struct packet *pkt, struct flow *flow, u64 owner,
				       bool from_client)
{
#pragma clang loop unroll(full)
	for (u32 attempt = 0; attempt < (HAVE_TCP ? 2 : 1); attempt++) {
		u32 state = flow_after(pkt, owner_state(owner), from_client);
		u64 found;

		if (state == owner_state(owner) && pkt->now - owner_seen(owner) < REFRESH_TICKS)
			return true;
		found = __sync_val_compare_and_swap(&flow->owner, owner,
						    owner_renew(owner, state, pkt->now));
		if (found == owner) {
			if (from_client)
				flow_learn_client(flow, packet_place(pkt), pkt->tags);
			return true;
		}
		if (owner_is_free(owner, pkt->now))
			return false;
		owner = found;
	}
	return true;
}

/* The first place of a flow with @hash among @backend's records; a home is never cut off. */
static __always_inline u32 flow_home(const struct backend *backend, u32 hash)
{
	return (u64)hash * (backend->slot_count / HOME_PLACES) >> 32 << HOME_SHIFT;
}

/* Take the index entry of an idle @flow away before its record is used anew. */
static __always_inline void flow_forget(const struct flow *flow, u64 owner, __be16 port)
{
	struct client_key key = {
		.client = flow->client,
		.service = service_address(),
		.client_port = flow->client_port,
		.service_port = flow->service_port,
		.protocol = owner_state(owner) >= TCP_OPENING ? PROTOCOL_TCP : PROTOCOL_UDP,
	};
	struct client_value *value = client_port.lookup(&key);

	if (value && value->nat_port == port && value->backend == owner_backend(owner))
		client_port.delete(&key);
}

/* What is looked for among the records of @backend, and what was found. */
struct search {
	const struct backend *backend;
	address client; /* who wants it */
	u32 home;
	u32 now;
	u64 claimed; /* the owner word to claim it with */
	u32 offset;  /* the place that was found */
	u64 owner;   /* the word that was there */
};

/* Claim the record at the place that @search has found, if nobody was faster. */
static __always_inline bool search_claim(const struct search *search, struct flow *flow)
{
	return __sync_val_compare_and_swap(&flow->owner, search->owner, search->claimed) ==
	       search->owner;
}

/* The record at the place that @search has found. */
static __always_inline struct flow *search_flow(const struct search *search)
{
	u32 index = search->backend->slot_first + search->offset;

	return reverse_lookup.lookup(&index);
}

/*
 * Look for a free record and claim it. False when none was free.
 *
 * The home of the flow comes first. Then follow PROBE_WINDOWS windows spread over the
 * whole range, from a random place on: all of a range of up to PROBE_WINDOWS *
 * PROBE_WINDOW records. Nobody outside can tell the port (RFC 6056): the one place comes
 * of a secret hash, the other of chance.
 *
 * A record that has timed out only just now is the last choice, unless the new flow is of the
 * same client: an answer may still be on its way to it.
 */
static __always_inline bool flow_probe(struct search *search)
{
	u64 chance = bpf_get_prandom_u32();
	u32 count = search->backend->slot_count;
	u32 start = chance * count >> 32;
	u32 stride = count / PROBE_WINDOWS;
	u64 spare = 0, spare_owner = 0;
	struct flow *flow;

	if (!count)
		return false;
	if (stride < PROBE_WINDOW)
		stride = PROBE_WINDOW;
	forget(count, chance);
	forget(stride, chance);
	forget(spare, chance);
	forget(spare_owner, chance);
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < HOME_PLACES + PROBE_WINDOWS * PROBE_WINDOW; step++) {
		u32 probe = step - HOME_PLACES;
		u32 place = start + probe / PROBE_WINDOW * stride + probe % PROBE_WINDOW;
		s64 overdue;

		search->offset = (step < HOME_PLACES ? search->home + step : place) % count;
		flow = search_flow(search);
		if (!flow)
			continue;
		search->owner = flow->owner;
		overdue = owner_overdue(search->owner, search->now);
		if (overdue <= 0)
			continue;
		if (overdue > REST_TICKS || address_is(flow->client, search->client)) {
			if (search_claim(search, flow))
				return true;
		} else if (!spare_owner) {
			spare = search->offset;
			spare_owner = search->owner;
			forget(spare, chance);
			forget(spare_owner, chance);
		}
	}
	search->offset = spare;
	search->owner = spare_owner;
	flow = search_flow(search);
	return flow && spare_owner && search_claim(search, flow);
}

/*
 * Claim a free record toward backend number @number, for a flow of @client with @hash. Returns
 * the record, its port in @port, or NULL when none was free. The record is looked up anew
 * after the search, so that the verifier need not follow each place of it to the end.
 */
static __always_inline struct flow *flow_claim(const struct backend *backend, u32 number,
					       address client, u32 hash, u32 now, __be16 *port)
{
	struct search search = {
		.backend = backend,
		.client = client,
		.home = flow_home(backend, hash),
		.now = now,
		.claimed = owner_word(now, number, FLOW_CLAIMED, backend->generation),
	};
	struct flow *flow;

	if (!flow_probe(&search))
		return NULL;
	flow = search_flow(&search);
	if (!flow)
		return NULL;
	*port = nat_port(search.offset);
	if (owner_state(search.owner) != FLOW_FREE)
		flow_forget(flow, search.owner, *port);
	return flow;
}

/*
 * Open a flow for @key, with @hash, toward backend number @number: claim a record, index it,
 * publish.
 *
 * FORWARD and the port in @port; else the reason. Where another CPU opened the same
 * flow just now, that one counts and this record is given back.
 */
static __always_inline enum verdict flow_open(struct packet *pkt, const struct client_key *key,
					      const struct backend *backend, u32 number, u32 hash,
					      __be16 *port)
{
	struct client_value value = { .backend = number };
	struct client_value *other;
	u64 place = packet_place(pkt);
	struct flow *flow = flow_claim(backend, number, key->client, hash, pkt->now, port);

	if (!packet_refresh(pkt))
		return DROP_MALFORMED;

	if (!flow)
		return DROP_NO_PORT;
	flow->client = key->client;
	flow->client_port = key->client_port;
	flow->service_port = key->service_port;
	flow_learn_client(flow, place, pkt->tags);
	value.nat_port = *port;
	if (client_port.insert((struct client_key *)key, &value)) {
		flow->owner = 0;
		other = client_port.lookup((struct client_key *)key);
		if (!other)
			return DROP_TABLE_FULL;
		if (other->backend != number)
			return DROP_NO_PORT;
		*port = other->nat_port;
		return FORWARD;
	}
	flow->owner =
		owner_word(pkt->now, number, packet_is_tcp(pkt) ? TCP_OPENING : FLOW_UNREPLIED,
			   backend->generation);
	return FORWARD;
}

#endif
