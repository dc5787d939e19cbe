/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What `xdplb trace` sees: packets that were asked for, as they came and as they leave, and what
 * became of them. The traced program is compiled for that, with its filter, and takes the other
 * one's place meanwhile; of any other program nothing here is a part.
 */
#ifndef XDPLB_TRACE_H
#define XDPLB_TRACE_H

#if HAVE_TRACE
static __always_inline struct trace *trace_of_cpu(void)
{
	u32 zero = 0;

	return traces.lookup(&zero);
}

/*
 * @value as 0 or 1 on paths of their own. Here LLVM asks it again where it does not elsewhere, and
 * the verifier has to know the answer.
 */
static __always_inline bool trace_known(u64 value)
{
	u64 known = value ? 1 : 0;

	opaque(known);
	return known;
}

/* Copy the head of the frame at @ctx to @frame; returns the length of all of it. */
static __always_inline u32 trace_frame(struct xdp_md *ctx, u8 *frame)
{
	u64 length = (u32)(ctx->data_end - ctx->data);
	u64 last = length - 1; /* byte of the frame, which is never empty */

	opaque(last);
	if (last >= TRACE_SNAP)
		last = TRACE_SNAP - 1;
	bpf_xdp_load_bytes(ctx, 0, frame, last + 1);
	return length;
}

/* Begin with the packet at @ctx, as it came; unless the one who asked has not asked for long. */
static __always_inline void trace_begin(struct xdp_md *ctx)
{
	struct trace *trace = trace_of_cpu();
	u32 zero = 0;
	u64 *until = trace_until.lookup(&zero);

	if (!trace || !until)
		return;
	trace->is_on = bpf_ktime_get_coarse_ns() < *until;
	if (!trace->is_on)
		return;
	trace->event.ifindex = ctx->ingress_ifindex;
	trace->event.is_new = false;
	trace->has_client = false;
	trace->is_sent = false;
	trace->event.length_in = trace_frame(ctx, trace->event.frame_in);
}

/* It comes from @port, 0 where it does not say, of @source. */
static __always_inline void trace_source(address source, __be16 port)
{
	struct trace *trace = trace_of_cpu();

	if (!trace)
		return;
	trace->has_client = true;
	trace->source = source;
	trace->source_port = port;
}

/* It leaves by @route. */
static __always_inline void trace_route(const struct route *route)
{
	struct trace *trace = trace_of_cpu();

	if (!trace)
		return;
	trace->is_sent = true;
	trace->destination = route->destination;
	trace->destination_port = route->destination_port;
}

static __always_inline void trace_verdict(enum verdict verdict)
{
	struct trace *trace = trace_of_cpu();

	if (trace)
		trace->event.verdict = verdict;
}

/* It has opened a flow. */
static __always_inline void trace_opened(void)
{
	struct trace *trace = trace_of_cpu();

	if (trace)
		trace->event.is_new = true;
}

/* Is @value, with @port if that is known, one of the clients that were asked for? */
static __always_inline bool trace_is_of(address value, __be16 port)
{
	return address_is_in(value, address_of(TRACE_CLIENT_0, TRACE_CLIENT_1),
			     address_of(TRACE_MASK_0, TRACE_MASK_1)) &&
	       (!TRACE_PORT || !port || port == be16(TRACE_PORT));
}

/* Was the packet asked for? */
static __always_inline bool trace_wants(const struct trace *trace)
{
	if (!(TRACE_VERDICTS >> trace->event.verdict & 1) && !(TRACE_NEW && trace->event.is_new))
		return false;
	if (TRACE_OF_CLIENT &&
	    !(trace->has_client && trace_is_of(trace->source, trace->source_port)) &&
	    !(trace->is_sent && trace_is_of(trace->destination, trace->destination_port)))
		return false;
	return TRACE_SAMPLE < 2 || bpf_get_prandom_u32() % TRACE_SAMPLE == 0;
}

/* The packet at @ctx is as it leaves, if it does: tell, if somebody has asked for it. */
static __always_inline void trace_end(struct xdp_md *ctx)
{
	struct trace *trace = trace_of_cpu();
	u64 size = __builtin_offsetof(struct trace_event, frame_out);

	if (!trace || !trace->is_on || !trace_wants(trace))
		return;
	trace->event.time = bpf_ktime_get_ns();
	trace->event.length_out = 0;
	if (verdict_is_sent(trace->event.verdict)) {
		trace->event.length_out = trace_frame(ctx, trace->event.frame_out);
		size = sizeof(struct trace_event);
	}
	if (trace_events.ringbuf_output(&trace->event, size, 0))
		trace->lost++;
}
#else
#define trace_known(value) (value)
#define trace_begin(ctx)
#define trace_source(source, port)
#define trace_route(route)
#define trace_verdict(verdict)
#define trace_opened()
#define trace_end(ctx)
#endif

#endif
