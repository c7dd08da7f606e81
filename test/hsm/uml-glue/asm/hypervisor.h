/* SPDX-License-Identifier: GPL-2.0 */
/* User-Mode Linux under a hypervisor that answers on a socket: what the ACRN driver asks before it loads. */
#ifndef _ASM_UM_HYPERVISOR_H
#define _ASM_UM_HYPERVISOR_H

enum x86_hypervisor_type {
	X86_HYPER_NATIVE = 0,
	X86_HYPER_ACRN,
};

extern enum x86_hypervisor_type x86_hyper_type;

#endif
