/*
 * The layout, and nothing else, of three structures that Linux 6.1 keeps inside its driver
 * (drivers/virt/acrn/acrn_drv.h) and so does not install as a header: member names, widths and order.
 * Only the layout check includes this file.
 */
#ifndef UPCALL_ACRN_DRV_LAYOUT_H
#define UPCALL_ACRN_DRV_LAYOUT_H

#include <stdint.h>

enum {
  ACRN_MEM_REGION_ADD = 0,
  ACRN_MEM_REGION_DEL = 2
};

struct vm_memory_region_op {
  uint32_t type, attr;
  uint64_t user_vm_pa, service_vm_pa, size;
};

struct vm_memory_region_batch {
  uint16_t vmid, reserved[3];
  uint32_t regions_num;
  uint64_t regions_gpa;
  struct vm_memory_region_op regions_op[];
};

struct acrn_ioreq_buffer {
  uint64_t ioreq_buf;
};

#endif
