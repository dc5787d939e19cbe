// SPDX-License-Identifier: GPL-2.0
/*
 * Both ends of a load test: a program makes numbered packets of many flows, and is also the
 * backends, which send each packet back, and the clients, who look at what comes back. See
 * tests/load.py.
 */
#include <uapi/linux/bpf.h>

#define LOOPBACK 1
#define MAGIC 0x0b5e55edU
#define UDP 17
#define ETHERNET 14
#define HEADERS (ETHERNET + 20)
#define NOTE 12
#define SWAP16(value) ((u16)((u16)(value) << 8 | (u16)(value) >> 8))
#define SWAP32(value) __builtin_bswap32(value)

/* What a packet of the walk is. */
enum kind {
	WHOLE,	  /* a datagram */
	FIRST,	  /* the first fragment of one */
	TAIL,	  /* the other one */
	STRANGER, /* a datagram of a client that has never sent one, and will not again */
};

/* One step of a walk; addresses and ports in network order, @length is of the IP packet. */
struct item {
	__be32 client;
	__be16 client_port;
	__be16 port;
	u32 flow;
	u16 length;
	u8 kind;
	u8 reserved;
};

/* The items that the generator on one processor sends, again and again. */
struct walk {
	u32 next;
	u32 first;
	u32 count;
	u32 strangers;
};

/* What has come by at one end of a flow. */
struct seen {
	u32 next;    /* the number that is expected */
	u32 count;   /* packets in all */
	u32 skipped; /* numbers that did not come in turn */
	u32 late;    /* packets of a number that was not expected any more */
	u32 moved;   /* packets that came from, or went to, another place than the one before */
	u32 broken;  /* packets that are not as they were sent */
	u64 place;
};

/* @sent is written by the generator, @asked by the backends, @answered by the clients. */
struct flow {
	u64 sent;
	struct seen asked;
	struct seen answered;
};

/* The same for a stranger. */
struct stranger {
	u32 asked;
	u32 answered;
};

/* Where the generator sends to, and who the strangers are. */
struct route {
	u8 destination[6] __attribute__((aligned(4)));
	u8 source[6];
	__be32 service;
	u32 strangers_from; /* the first stranger's address, in the host's order */
};

BPF_TABLE("array", u32, struct item, items, 1);
BPF_TABLE("array", u32, struct walk, walks, 1);
BPF_TABLE("array", u32, struct flow, flows, 1);
BPF_TABLE("array", u32, struct stranger, strangers, 1);
BPF_TABLE("array", u32, struct route, routes, 1);
BPF_TABLE("array", u32, u64, totals, 1);

#define TOTAL_ASKED 0
#define TOTAL_ANSWERED 1

static __always_inline void count(u32 which)
{
	u64 *total = totals.lookup(&which);

	if (total)
		__sync_fetch_and_add(total, 1);
}

static __always_inline u32 words(const void *data, u32 size)
{
	u32 sum = 0;

	for (u32 at = 0; at < size; at += 2)
		sum += *(u16 *)(data + at);
	return sum;
}

static __always_inline u16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/*
 * The sum over pseudo-header, UDP header and note of the datagram at @ip; what follows it is
 * all 0.
 */
static __always_inline u16 udp_sum(const void *ip)
{
	return fold(words(ip + 12, 8) + SWAP16(UDP) + *(u16 *)(ip + 24) + words(ip + 20, 8 + NOTE));
}

/* Make the next packet and send it by an interface. */
static __always_inline int generate(struct xdp_md *ctx)
{
	u32 zero = 0, processor = bpf_get_smp_processor_id(), number, sequence, flow_number;
	struct walk *walk = walks.lookup(&processor);
	struct route *route = routes.lookup(&zero);
	struct item *item;
	struct flow *flow;
	void *data, *ip, *note;
	__be32 client;

	if (!walk || !route)
		return XDP_ABORTED;
	number = walk->first + walk->next;
	item = items.lookup(&number);
	if (!item)
		return XDP_ABORTED;
	walk->next = walk->next + 1 < walk->count ? walk->next + 1 : 0;
	flow_number = item->flow;
	flow = flows.lookup(&flow_number);
	if (!flow)
		return XDP_ABORTED;
	sequence = flow->sent++;
	client = item->client;
	if (item->kind == STRANGER) {
		sequence = walk->strangers++;
		client = SWAP32(route->strangers_from + sequence);
	}
	if (bpf_xdp_adjust_tail(ctx, ETHERNET + (int)item->length - FRAME_LENGTH))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	ip = data + ETHERNET;
	if (data + HEADERS + 8 + NOTE > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(data, route->destination, 6);
	__builtin_memcpy(data + 6, route->source, 6);
	*(u16 *)(data + 12) = SWAP16(0x0800);
	*(u16 *)ip = SWAP16(0x4500);
	*(u16 *)(ip + 2) = SWAP16(item->length);
	*(u16 *)(ip + 4) = sequence;
	*(u16 *)(ip + 6) = item->kind == FIRST	? SWAP16(0x2000)
			   : item->kind == TAIL ? SWAP16(FIRST_LENGTH / 8)
						: 0;
	*(u16 *)(ip + 8) = SWAP16(64 << 8 | UDP);
	*(u16 *)(ip + 10) = 0;
	*(u32 *)(ip + 12) = client;
	*(u32 *)(ip + 16) = route->service;
	*(u16 *)(ip + 10) = ~fold(words(ip, 20));
	note = ip + 20;
	if (item->kind != TAIL) {
		*(u16 *)note = item->client_port;
		*(u16 *)(note + 2) = item->port;
		*(u16 *)(note + 4) =
			SWAP16(item->length - 20 + (item->kind == FIRST ? TAIL_LENGTH : 0));
		*(u16 *)(note + 6) = 0;
		note += 8;
	}
	*(u32 *)note = MAGIC;
	*(u32 *)(note + 4) = flow_number;
	*(u32 *)(note + 8) = sequence;
	if (item->kind == TAIL)
		*(u64 *)(note + NOTE) = 0; /* what the frame held before */
	if (item->kind == WHOLE || item->kind == STRANGER) {
		u16 sum = ~udp_sum(ip);

		*(u16 *)(ip + 26) = sum ?: 0xffff;
	}
	return bpf_redirect(IFINDEX, 0);
}

/* A packet with @sequence was seen, which came from, or went to, @place. */
static __always_inline void see(struct seen *seen, u32 sequence, u64 place, bool is_broken)
{
	if (sequence == seen->next)
		seen->next++;
	else if ((s32)(sequence - seen->next) > 0) {
		seen->skipped += sequence - seen->next;
		seen->next = sequence + 1;
	} else
		seen->late++;
	if (seen->count && seen->place != place)
		seen->moved++;
	seen->place = place;
	seen->count++;
	seen->broken += is_broken;
}

/* Be the backends and the clients. What is not of the load is the kernel's. */
static __always_inline int reflect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *ip = data + ETHERNET, *note = ip + 20;
	u32 zero = 0, number, sequence, item_number, address;
	struct route *route = routes.lookup(&zero);
	struct stranger *stranger;
	bool is_tail, is_answer, is_broken;
	struct flow *flow;
	struct item *item;
	u16 mac[3], fragment, port, other;
	u64 place;

	if (!route || data + HEADERS + 8 + NOTE > end)
		return XDP_PASS;
	if (*(u16 *)(data + 12) != SWAP16(0x0800) || *(u8 *)ip != 0x45 || *(u8 *)(ip + 9) != UDP)
		return XDP_PASS;
	fragment = SWAP16(*(u16 *)(ip + 6));
	is_tail = fragment & 0x1fff;
	if (!is_tail)
		note += 8;
	if (*(u32 *)note != MAGIC)
		return XDP_PASS;
	number = item_number = *(u32 *)(note + 4);
	sequence = *(u32 *)(note + 8);
	flow = flows.lookup(&number);
	item = items.lookup(&item_number);
	if (!flow || !item)
		return XDP_PASS;
	/* The clients are in 100.64.0.0/10 and their packets go to no other end than this one. */
	address = SWAP32(*(u32 *)(ip + 16));
	is_answer = (address & 0xffc00000U) == 0x64400000U;
	place = is_tail ? 0 : *(u16 *)(ip + 20) | (u64) * (u16 *)(ip + 22) << 16;
	place |= (u64) * (u32 *)(ip + 12 + (is_answer ? 0 : 4)) << 32;
	is_broken = SWAP16(*(u16 *)(ip + 2)) != item->length || fold(words(ip, 20)) != 0xffff;
	if (item->kind == WHOLE || item->kind == STRANGER)
		is_broken |= udp_sum(ip) != 0xffff;
	is_broken |= *(u32 *)(ip + 12) != route->service;
	if (is_answer && item->kind != STRANGER)
		is_broken |= *(u32 *)(ip + 16) != item->client;
	if (is_answer) /* by the clients' interface */
		is_broken |= *(u32 *)(data + 6) != *(u32 *)route->destination ||
			     *(u16 *)(data + 10) != *(u16 *)(route->destination + 4);
	if (is_answer && !is_tail)
		is_broken |= *(u16 *)(ip + 22) != item->client_port;
	if (!is_tail)
		is_broken |= *(u16 *)(ip + (is_answer ? 20 : 22)) != item->port;
	if (item->kind == STRANGER) {
		u32 which = sequence;

		stranger = strangers.lookup(&which);
		if (!stranger)
			return XDP_PASS;
		__sync_fetch_and_add(is_answer ? &stranger->answered : &stranger->asked, 1);
		if (is_broken)
			flow->asked.broken++;
	} else
		see(is_answer ? &flow->answered : &flow->asked, sequence, place, is_broken);
	count(is_answer ? TOTAL_ANSWERED : TOTAL_ASKED);
	if (is_answer)
		return XDP_DROP;
	__builtin_memcpy(mac, data, 6);
	__builtin_memcpy(data, data + 6, 6);
	__builtin_memcpy(data + 6, mac, 6);
	address = *(u32 *)(ip + 12);
	*(u32 *)(ip + 12) = *(u32 *)(ip + 16);
	*(u32 *)(ip + 16) = address;
	/* A redirect: XDP_TX into a veth wakes nobody there who has no XDP program. */
	if (is_tail)
		return bpf_redirect(ctx->ingress_ifindex, 0);
	port = *(u16 *)(ip + 20);
	other = *(u16 *)(ip + 22);
	*(u16 *)(ip + 20) = other;
	*(u16 *)(ip + 22) = port;
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

/* A packet that BPF_PROG_TEST_RUN has made comes from the loopback interface. */
int load(struct xdp_md *ctx)
{
	return ctx->ingress_ifindex == LOOPBACK ? generate(ctx) : reflect(ctx);
}
