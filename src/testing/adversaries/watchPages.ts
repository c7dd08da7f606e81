/**
 * Which page is whose: learned from the hypercalls that pass, so that it works over any hypervisor.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { HypercallId } from "../../domain/abi/HypercallId.ts"
import * as Hypercall from "../../domain/Hypercall.ts"
import { MAX_VCPUS, PAGE_BYTES } from "../../domain/Limits.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import { ServiceMemory, type ServicePage } from "../../services/ServiceMemory.ts"

/** A page that was asked for as an I/O request page. */
export class WatchedPage {
  /** Whose page it is, while it is a VM's. */
  vm: { readonly id: number; readonly vcpus: number } | undefined
  /** Reads of the page while it was one. */
  reads = 0
  /** By slot: its request was read and not completed since. */
  readonly isFetched: Array<boolean> = Array.from({ length: MAX_VCPUS }, () => false)

  /** The hypervisor wrote FREE into every slot. */
  clear(): void {
    this.isFetched.fill(false)
  }
}

type Wrap = (page: ServicePage, watched: WatchedPage) => ServicePage

interface Watched {
  readonly gate: HypercallGate["Service"]
  readonly memory: ServiceMemory["Service"]
}

/** The same hypervisor, with each I/O request page as `wrap` makes it. */
export const watchPages = (
  gate: HypercallGate["Service"],
  memory: ServiceMemory["Service"],
  wrap: Wrap
): Watched => {
  const pages = new Map<number, WatchedPage>()
  const vcpus = new Map<number, number>()

  const read: Hypercall.StructureReader = (address, bytes) => {
    const into = new Uint8Array(bytes)
    return Result.isSuccess(memory.read(Number(address), into)) ? into : undefined
  }
  const decode = (id: number, param1: bigint, param2: bigint) =>
    Result.getOrUndefined(Hypercall.decode({ id, param1, param2 }, read, 0))
  const pagesOf = (vmId: number) => [...pages.values()].filter(({ vm }) => vm?.id === vmId)

  const disown = (vmId: number): void => {
    for (const page of pagesOf(vmId)) {
      page.vm = undefined
      page.clear()
    }
  }

  /** What an accepted call says, from its value as it was before, or for CREATE_VM as it was filled in. */
  const learn = (call: Hypercall.Hypercall): void => {
    switch (call._tag) {
      case "CreateVm":
        vcpus.set(call.creation.vmid, call.creation.vcpuNum)
        break
      case "SetIoRequestBuffer": {
        disown(call.vmId)
        const page = pages.get(Number(call.page))
        if (page !== undefined) page.vm = { id: call.vmId, vcpus: vcpus.get(call.vmId) ?? MAX_VCPUS }
        break
      }
      case "ResetVm":
        for (const page of pagesOf(call.vmId)) page.clear()
        break
      case "DestroyVm":
        disown(call.vmId)
        break
      default:
    }
  }

  const call: HypercallGate["Service"]["call"] = (id, param1, param2) => {
    switch (id) {
      case HypercallId.CreateVm:
      case HypercallId.SetIoRequestBuffer:
      case HypercallId.ResetVm:
      case HypercallId.DestroyVm:
        return Effect.suspend(() => {
          const asked = decode(id, param1, param2)
          return Effect.map(gate.call(id, param1, param2), (result) => {
            const accepted = id === HypercallId.CreateVm ? decode(id, param1, param2) : asked
            if (result >= 0 && accepted !== undefined) learn(accepted)
            return result
          })
        })
      default:
        return gate.call(id, param1, param2)
    }
  }

  const allocate: ServiceMemory["Service"]["allocate"] = (request) => {
    const given = memory.allocate(request)
    if (request.purpose._tag !== "IoRequestPage") return given
    return Effect.tap(given, ({ address, bytes }) => {
      const addresses = Array.from({ length: bytes / PAGE_BYTES }, (_, i) => address + i * PAGE_BYTES)
      return Effect.acquireRelease(
        Effect.sync(() => {
          for (const each of addresses) pages.set(each, new WatchedPage())
        }),
        () =>
          Effect.sync(() => {
            for (const each of addresses) pages.delete(each)
          })
      )
    })
  }

  return {
    gate: HypercallGate.of({
      profile: gate.profile,
      call,
      notifyFinish: (vmId, vcpu) => gate.notifyFinish(vmId, vcpu)
    }),
    memory: ServiceMemory.of({
      allocate,
      page: (address) => {
        const watched = pages.get(address)
        const page = memory.page(address)
        return watched === undefined ? page : Result.map(page, (raw) => wrap(raw, watched))
      },
      read: (address, into) => memory.read(address, into),
      write: (address, from) => memory.write(address, from)
    })
  }
}
