/**
 * The slot protocol where a kernel's own module is the HSM and this program its default client, as over /dev/acrn_hsm.
 *
 * The kernel takes a request from PENDING to PROCESSING and, with `kernel_handled` 0, leaves it to us. It alone stores
 * COMPLETE, in its notification: a second store could hit the slot's next request. It also knows which requests are
 * polled for, so that it wants to hear of every one.
 *
 * Facts: Linux `drivers/virt/acrn/ioreq.c` (`acrn_ioreq_dispatch`, `ioreq_complete_request`).
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import type { ServicePage } from "../ServiceMemory.ts"
import { RequestPage } from "./RequestPage.ts"

const { Complete, Free, Pending, Processing } = Slot.SlotStateCode

export class DefaultClientPage extends RequestPage {
  override isOffered(vcpu: number, state: number): boolean {
    return state === Processing && this.page.load32(vcpu * SLOT_BYTES + Slot.SLOT_KERNEL_HANDLED_OFFSET) === 0
  }

  override isElsewhere(state: number): boolean {
    return state === Free || state === Pending || state === Processing || state === Complete
  }

  protected override storeClaim(): void {
    // The kernel stored PROCESSING when it left the request to us.
  }

  protected override storeCompletion(): boolean {
    return true
  }
}

/** The half of the protocol that a hypervisor's layer leaves to this program. */
export const pageFor = (
  role: HypervisorProfile["dispatchRole"],
  page: ServicePage,
  vcpus: number,
  notify: (vcpu: number) => number
): RequestPage =>
  role === "DefaultClient"
    ? new DefaultClientPage(page, vcpus, notify)
    : new RequestPage(page, vcpus, notify)
