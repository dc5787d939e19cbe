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

/* Is there one that counts toward its client's limit? */
static __always_inline bool owner_is_counted(u64 owner)
{
	return owner_is_flow(owner) && owner_state(owner) != FLOW_RESERVED;
}

/* Was the flow opened toward @backend, number @number, and not toward one that had it before? */
static __always_inline bool owner_is_toward(u64 owner, const struct backend *backend, u32 number)
{
	return owner_backend(owner) == number && owner >> 56 == backend->generation;
}

/* Which of the four timeouts is whose: two bits a state. */
#define TIMEOUT_OF(state, timeout) ((u32)(timeout) << 2 * (state))
#define TIMEOUTS                                            \
	(TIMEOUT_OF(FLOW_ANSWERED, TIMEOUT_ANSWERED) |      \
	 TIMEOUT_OF(TCP_OPENING, TIMEOUT_TRANSITORY) |      \
	 TIMEOUT_OF(TCP_ACCEPTED, TIMEOUT_TRANSITORY) |     \
	 TIMEOUT_OF(TCP_ESTABLISHED, TIMEOUT_ESTABLISHED) | \
	 TIMEOUT_OF(TCP_CLIENT_FIN, TIMEOUT_ESTABLISHED) |  \
	 TIMEOUT_OF(TCP_BACKEND_FIN, TIMEOUT_ESTABLISHED) | \
	 TIMEOUT_OF(TCP_CLOSING, TIMEOUT_TRANSITORY) |      \
	 TIMEOUT_OF(TCP_CLIENT_RST, TIMEOUT_TRANSITORY) |   \
	 TIMEOUT_OF(TCP_BACKEND_RST, TIMEOUT_TRANSITORY))

/*
 * Idle ticks after which a record of service number @service in @state may be taken over;
 * without a branch, to verify.
 */
static __always_inline s32 flow_timeout(u32 service, u32 state)
{
	u64 udp = UNREPLIED_TICKS | (u64)ANSWERED_TICKS << 32;
	u64 tcp = TRANSITORY_TICKS | (u64)ESTABLISHED_TICKS << 32;
	u64 number = TIMEOUTS >> (state * 2 & 31);

	if (MANY_SERVICES) {
		struct service *found = services.lookup(&service);

		return found ? found->timeouts[number % TIMEOUT_MAX] : 0;
	}
	return (HAVE_TCP ? udp + (tcp - udp) * (number >> 1 & 1) : udp) >> (number & 1) * 32;
}

/*
 * For how many ticks the record of @flow, whose word is @owner, could have been given away; below
 * 1, it cannot be.
 */
static __always_inline s64 flow_overdue(const struct flow *flow, u64 owner, u32 now)
{
	s32 idle = now - owner_seen(owner);
	u32 state = owner_state(owner);

	if (state == FLOW_FREE)
		return REST_TICKS + 1;
	return state == FLOW_RESERVED ? 0 : (s64)idle - flow_timeout(flow->service, state);
}

/* May the record of @flow, whose word is @owner, be given to somebody else? */
static __always_inline bool flow_is_free(const struct flow *flow, u64 owner, u32 now)
{
	return flow_overdue(flow, owner, now) > 0;
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
		.service = MANY_SERVICES ? pkt->ip->destination : own_address(0),
		.client_port = pkt->ports->source,
		.service_port = service_port,
		.protocol = packet_protocol(pkt),
		.number = packet_service(pkt),
	};

	return key;
}

static __always_inline bool flow_is_of(const struct flow *flow, const struct client_key *key)
{
	return address_is(flow->client, key->client) && flow->client_port == key->client_port &&
	       (flow->service_port == key->service_port ||
		(HAVE_RESERVATIONS && owner_state(flow->owner) == FLOW_RESERVED));
}

/*
 * Where @pkt came from: the MAC address of whom, and the interface; with the service that it is
 * for, one word.
 */
static __always_inline u64 packet_place(const struct packet *pkt)
{
	return mac_word(pkt->eth->source) | (u64)pkt->interface << 48 |
	       (u64)packet_service(pkt) << 56;
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
		if (flow_is_free(flow, owner, pkt->now))
			return false;
		owner = found;
	}
	return true;
}

/*
 * The client of @flow, whose word was @owner, goes to another backend: this one must not find the
 * flow again when it is back. The record lies there until its time is over, and is nobody's.
 */
static __always_inline void flow_leave(struct flow *flow, u64 owner)
{
	__sync_val_compare_and_swap(&flow->owner, owner, owner ^ 0x80ULL << 56);
}

/*
 * The first place of a flow of @client with @hash among @backend's records; a home is never
 * cut off.
 */
static __always_inline u32 flow_home(const struct backend *backend, address client, u32 hash)
{
	u32 groups = backend->slot_count / HOME_PLACES;
	u32 group;

	if (!limit_has_window(groups))
		return (u64)hash * groups >> 32 << HOME_SHIFT;
	group = limit_window(client, groups) + ((u64)hash * LIMIT_GROUPS >> 32);
	return (group < groups ? group : group - groups) << HOME_SHIFT;
}

/* Take the index entry of @key away, if it leads to @port of backend number @number. */
static __always_inline void flow_unindex(struct client_key *key, u32 number, __be16 port)
{
	struct client_value *value = client_port.lookup(key);

	if (value && value->nat_port == port && value->backend == number)
		client_port.delete(key);
}

/* Take an idle @flow from its client before its record is used anew: index entry and count. */
static __always_inline void flow_forget(const struct flow *flow, u64 owner, __be16 port)
{
	struct client_key key = {
		.client = flow->client,
		.service = own_address(own_of_service(flow->service)),
		.client_port = flow->client_port,
		.service_port = flow->service_port,
		.protocol = owner_state(owner) >= TCP_OPENING ? PROTOCOL_TCP : PROTOCOL_UDP,
		.number = flow->service,
	};

	if (owner_is_counted(owner))
		limit_uncount(key.client);
	flow_unindex(&key, owner_backend(owner), port);
}

/*
 * What is looked for among the records of @backend, and what was found.
 *
 * A client at its limit can only have a record of its own again, once that has timed out. Where
 * none is seen, the count is not of flows that are here: it is that of others with the same hash,
 * or of a backend that is gone. Then the client is served like any other.
 */
#define SEARCH_AT_LIMIT 1 /* the client is at its limit */
#define SEARCH_SAW_OWN 2  /* and has a flow here */

struct search {
	const struct backend *backend;
	const struct client_key *key; /* who wants it */
	u32 home;
	u32 now;
	u32 number; /* of the backend */
	u64 flags;
	u64 offset; /* the place that was found */
	u64 owner;  /* the word that was there */
};

/* The owner word that a record is claimed with. */
static __always_inline u64 search_claims(const struct search *search)
{
	return owner_word(search->now, search->number, FLOW_CLAIMED, search->backend->generation);
}

/* Claim the record at the place that @search has found, if nobody was faster. */
static __always_inline bool search_claim(const struct search *search, struct flow *flow)
{
	return __sync_val_compare_and_swap(&flow->owner, search->owner, search_claims(search)) ==
	       search->owner;
}

/* The record at the place that @search has found. */
static __always_inline struct flow *search_flow(const struct search *search)
{
	u32 index = search->backend->slot_first + search->offset;

	return reverse_lookup.lookup(&index);
}

/* How well a record does for a search. */
enum fitness {
	UNFIT,
	FIT_AT_NEED, /* if there is nothing better */
	FIT,
};

/* Is the client at its limit? A copy is asked, so that the verifier learns nothing of the flag. */
static __always_inline bool search_is_at_limit(const struct search *search)
{
	u64 flags = search->flags;

	forget(flags, search->owner);
	return flags & SEARCH_AT_LIMIT;
}

/*
 * A record that has timed out only just now is the last choice, unless the new flow is of the
 * same client: an answer may still be on its way to it.
 */
static __always_inline enum fitness search_judge(struct search *search, const struct flow *flow)
{
	s64 overdue = flow_overdue(flow, search->owner, search->now);

	if (CLIENT_LIMIT && search_is_at_limit(search)) {
		if (!owner_is_counted(search->owner) ||
		    !subscriber_is(flow->client, search->key->client))
			return overdue > 0 ? FIT_AT_NEED : UNFIT;
		search->flags |= SEARCH_SAW_OWN;
		forget(search->flags, search->owner);
		return overdue > 0 ? FIT : UNFIT;
	}
	if (overdue <= 0)
		return UNFIT;
	if (overdue > REST_TICKS || address_is(flow->client, search->key->client))
		return FIT;
	return FIT_AT_NEED;
}

/* Windows of PROBE_WINDOW records, spread over @count records that begin at @first. */
struct range {
	u32 first;
	u32 count;
	u32 start; /* where the first window begins */
	u32 stride;
};

/* @windows of them, from a random place on, which @chance chooses. */
static __always_inline struct range range_of(u32 first, u32 count, u32 windows, u64 chance)
{
	struct range range = {
		.first = first,
		.count = count,
		.start = (chance & 0xffffffff) * count >> 32,
		.stride = count / windows,
	};

	if (range.stride < PROBE_WINDOW)
		range.stride = PROBE_WINDOW;
	forget(range.count, chance);
	forget(range.stride, chance);
	return range;
}

/* Record number @probe of the windows. */
static __always_inline u32 range_place(const struct range *range, u32 probe)
{
	u32 place = range->start + probe / PROBE_WINDOW * range->stride + probe % PROBE_WINDOW;

	return range->first + place % range->count;
}

/* The records among which @search's client has its window. */
static __always_inline struct range range_near(const struct search *search, u64 chance)
{
	u32 groups = search->backend->slot_count / HOME_PLACES;

	if (!limit_has_window(groups))
		return range_of(0, search->backend->slot_count, NEAR_WINDOWS, chance);
	return range_of(limit_window(search->key->client, groups) << HOME_SHIFT,
			LIMIT_GROUPS << HOME_SHIFT, NEAR_WINDOWS, chance);
}

/* The place that comes in turn: at home, @near, or in @all of the range. */
static __always_inline u32 search_place(const struct search *search, const struct range *near,
					const struct range *all, u32 step)
{
	if (step < HOME_PLACES)
		return (search->home + step) % all->count;
	step -= HOME_PLACES;
	/* A window that begins near the end goes on at the beginning, as homes do. */
	if (step < NEAR_PLACES)
		return range_place(near, step) % (all->count & ~(HOME_PLACES - 1));
	return range_place(all, step - NEAR_PLACES);
}

/*
 * Look for a free record and claim it. False when none was free, and when the client is at its
 * limit.
 *
 * The home of the flow comes first. Then follow windows of records from a random place on:
 * NEAR_WINDOWS over the client's own window, if it has one, and PROBE_WINDOWS over the whole
 * range; all of a range of up to PROBE_WINDOWS * PROBE_WINDOW records. Nobody outside can tell
 * the port (RFC 6056): the one place comes of a secret hash, the other of chance.
 */
static __always_inline bool flow_probe(struct search *search)
{
	u64 chance = bpf_get_prandom_u32();
	struct range all = range_of(0, search->backend->slot_count, PROBE_WINDOWS, chance);
	struct range near = {};
	struct flow *flow;
	u64 spare = 0; /* the place of the last choice, + 1 */

	if (!all.count)
		return false;
	if (CLIENT_WINDOW)
		near = range_near(search, chance);
	forget(spare, chance);
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < HOME_PLACES + NEAR_PLACES + PROBE_PLACES; step++) {
		enum fitness fitness;

		search->offset = search_place(search, &near, &all, step);
		flow = search_flow(search);
		if (!flow)
			continue;
		search->owner = flow->owner;
		fitness = search_judge(search, flow);
		if (fitness == FIT && search_claim(search, flow))
			return true;
		if (fitness == FIT_AT_NEED && !spare) {
			spare = search->offset + 1;
			forget(spare, search->owner);
		}
	}
	search->offset = spare - 1;
	flow = search_flow(search);
	if (!flow || !spare || search->flags & SEARCH_SAW_OWN)
		return false;
	search->owner = flow->owner;
	return flow_is_free(flow, search->owner, search->now) && search_claim(search, flow);
}

/*
 * Claim what @search looks for. Returns the record, its port in @port, or NULL when there was
 * none. The record is looked up anew after the search, so that the verifier need not follow
 * each place of it to the end.
 */
static __always_inline struct flow *flow_claim(struct search *search, __be16 *port)
{
	struct flow *flow;

	if (!flow_probe(search))
		return NULL;
	flow = search_flow(search);
	if (!flow)
		return NULL;
	*port = nat_port(search->offset);
	if (owner_state(search->owner) != FLOW_FREE)
		flow_forget(flow, search->owner, *port);
	return flow;
}

/*
 * Make @flow, which was claimed with @claimed and is filled in for @key, the flow @owner. False
 * where the record is lost: this CPU was away for a whole timeout, and another one has it.
 */
static __always_inline bool flow_publish(struct flow *flow, u64 claimed, u64 owner,
					 struct client_key *key, __be16 port)
{
	/* Counted first, so that whoever takes the flow over finds it counted. */
	limit_count(key->client);
	if (__sync_val_compare_and_swap(&flow->owner, claimed, owner) == claimed)
		return true;
	limit_uncount(key->client);
	flow_unindex(key, owner_backend(owner), port);
	return false;
}

/*
 * There was no room for an index entry of @key, or one already: FORWARD with the port in @port
 * where another CPU has just opened the flow toward the same backend.
 */
static __always_inline enum verdict flow_find_other(struct client_key *key, u32 number,
						    __be16 *port)
{
	struct client_value *other = client_port.lookup(key);

	if (!other)
		return DROP_TABLE_FULL;
	if (other->backend != number)
		return DROP_NO_PORT;
	*port = other->nat_port;
	return FORWARD;
}

/*
 * Open a flow for @key, with @hash, toward backend number @number: claim a record, index it,
 * publish.
 *
 * FORWARD and the port in @port; else the reason. Where another CPU opened the same
 * flow just now, that one counts and this record is given back.
 */
static __always_inline enum verdict flow_open(struct packet *pkt, struct client_key *key,
					      const struct backend *backend, u32 number, u32 hash,
					      __be16 *port)
{
	struct search search = {
		.backend = backend,
		.key = key,
		.home = flow_home(backend, key->client, hash),
		.now = pkt->now,
		.number = number,
		.flags = limit_is_reached(key->client) ? SEARCH_AT_LIMIT : 0,
	};
	struct client_value value = { .backend = number };
	struct flow *flow;
	u64 owner;

	forget(search.flags, hash);
	if (!packet_refresh(pkt))
		return DROP_MALFORMED;
	key->protocol = packet_protocol(pkt);
	key->number = packet_service(pkt);
	flow = flow_claim(&search, port);
	if (!flow)
		return search.flags & SEARCH_SAW_OWN ? DROP_CLIENT_LIMIT : DROP_NO_PORT;
	flow->client = key->client;
	flow->client_port = key->client_port;
	flow->service_port = key->service_port;
	flow_learn_client(flow, packet_place(pkt), pkt->tags);
	value.nat_port = *port;
	if (client_port.insert(key, &value)) {
		__sync_val_compare_and_swap(&flow->owner, search_claims(&search), 0);
		return flow_find_other(key, number, port);
	}
	owner = owner_word(pkt->now, number, packet_is_tcp(pkt) ? TCP_OPENING : FLOW_UNREPLIED,
			   backend->generation);
	return flow_publish(flow, search_claims(&search), owner, key, *port) ? FORWARD
									     : DROP_NO_PORT;
}

#endif
