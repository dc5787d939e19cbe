// SPDX-License-Identifier: GPL-2.0
/*
 * What the benchmark needs beside the balancer: something that makes packets, the least
 * that can be done with one, and something that counts them at the end.
 */
#include <uapi/linux/bpf.h>

/* The same for every packet of a run: Ethernet and IP up to its checksum, and the UDP length. */
struct head {
	u64 words[3];
	__be16 udp_length;
	u16 reserved[3];
};

/* What differs from packet to packet. */
struct item {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	u16 ip_check;
	u16 udp_check;
};

/* Which item is next. */
struct walk {
	u32 next;
	u32 count;
};

/* The key of the balancer's client_port; see bpf/types.h. */
struct key {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	u32 protocol;
};

BPF_TABLE("array", u32, struct head, heads, 1);
BPF_TABLE("array", u32, struct item, items, 1);
BPF_TABLE("array", u32, struct walk, walks, 1);
BPF_TABLE("percpu_array", u32, u64, arrived, 1);
BPF_PROG_ARRAY(subject, 1);
BPF_TABLE("hash", struct key, u64, client_port, 1);

/*
 * Write all headers of the next packet anew, each field as wide as it is read. False
 * where the frame is too short for them.
 */
static __always_inline bool restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	u32 zero = 0, number;
	struct walk *walk = walks.lookup(&zero);
	struct head *head = heads.lookup(&zero);
	struct item *item;

	if (!walk || !head || data + 42 > (void *)(long)ctx->data_end)
		return false;
	number = walk->next;
	walk->next = number + 1 < walk->count ? number + 1 : 0;
	item = items.lookup(&number);
	if (!item)
		return false;
	*(u64 *)data = head->words[0];
	*(u64 *)(data + 8) = head->words[1];
	*(u64 *)(data + 16) = head->words[2];
	*(u16 *)(data + 24) = item->ip_check;
	*(__be32 *)(data + 26) = item->source;
	*(__be32 *)(data + 30) = item->destination;
	*(__be16 *)(data + 34) = item->source_port;
	*(__be16 *)(data + 36) = item->destination_port;
	*(__be16 *)(data + 38) = head->udp_length;
	*(u16 *)(data + 40) = item->udp_check;
	return true;
}

/* Make a packet and hand it to the program under test. */
int drive(struct xdp_md *ctx)
{
	if (restore(ctx))
		subject.call(ctx, 0);
	return XDP_ABORTED;
}

/* Make a packet and send it by an interface. */
int generate(struct xdp_md *ctx)
{
	return restore(ctx) ? bpf_redirect(IFINDEX, 0) : XDP_ABORTED;
}

/* The least that a program under test can do. */
int bare(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* The least that a program must do that keeps its flows in a hash map: look one up. */
int probe(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct key key = { .protocol = 17 };

	if (data + 42 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	key.source = *(__be32 *)(data + 26);
	key.destination = *(__be32 *)(data + 30);
	key.source_port = *(__be16 *)(data + 34);
	key.destination_port = *(__be16 *)(data + 36);
	return client_port.lookup(&key) ? XDP_TX : XDP_DROP;
}

/* The least that sends a packet back, or on by another interface. */
int swap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	u16 *mac = data, other[3];

	if (data + 14 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(other, mac, 6);
	__builtin_memcpy(mac, mac + 3, 6);
	__builtin_memcpy(mac + 3, other, 6);
	return IFINDEX ? bpf_redirect(IFINDEX, 0) : XDP_TX;
}

/* Count every IPv4/UDP packet and drop it; what else comes is the kernel's. */
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	u32 zero = 0;
	u64 *count = arrived.lookup(&zero);

	if (!count || data + 42 > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (*(u16 *)(data + 12) != 8 || *(u8 *)(data + 23) != 17)
		return XDP_PASS;
	(*count)++;
	return XDP_DROP;
}
