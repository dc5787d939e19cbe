/* SPDX-License-Identifier: GPL-2.0 */
/* BCC forces this file in first; its helpers.h wants to know that the kernel has bpf(2). */
#ifndef XDPLB_STUB_KCONFIG_H
#define XDPLB_STUB_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#endif
