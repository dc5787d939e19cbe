/* SPDX-License-Identifier: GPL-2.0 */
/* Empty on purpose: BCC brings its own copy of the bpf interface. */
