/**
 * The memory of one VM: RAM asked from the Service VM, mapped by hypercall, and kept track of, so that overlap and
 * misalignment are refused with an explanation where the gate would take them silently.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Errno } from "../../domain/Errno.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import * as MemoryRegion from "../../domain/MemoryRegion.ts"
import { GuestMemoryMap } from "../GuestMemory.ts"
import type { Hypercalls } from "../Hypercalls.ts"
import type { ServiceMemory, ServiceRegion } from "../ServiceMemory.ts"
import type { VirtualMachineError, VirtualMachineErrorReason } from "../VirtualMachineError.ts"
import { beyond } from "./capability.ts"
import { refuse, refusedAt } from "./refusal.ts"

const decodeMapped = Schema.decodeUnknownResult(MemoryRegion.MappedRegion)
const decodeUnmapped = Schema.decodeUnknownResult(MemoryRegion.UnmappedRegion)

export interface VmMemory {
  readonly guestMap: GuestMemoryMap
  readonly map: (region: {
    readonly guestAddress: number
    readonly bytes: number
    readonly rights?: MemoryRegion.AccessRights
    readonly cacheType?: MemoryRegion.CacheType
  }) => Effect.Effect<MemoryRegion.MappedRegion, VirtualMachineError>
  readonly unmap: (
    region: { readonly guestAddress: number; readonly bytes: number }
  ) => Effect.Effect<void, VirtualMachineError>
}

export const makeMemory = (options: {
  readonly hypercalls: Hypercalls["Service"]
  readonly memory: ServiceMemory["Service"]
  readonly memoryScope: Scope.Scope
  readonly name: string
  readonly profile: HypervisorProfile
  readonly vmId: number
}): VmMemory => {
  const { hypercalls, memory, memoryScope, name, profile, vmId } = options
  const guestMap = new GuestMemoryMap()
  const grants = new Map<ServiceRegion, Scope.Closeable>()
  const refused = (step: string) => refusedAt(name, step)

  const check = (
    { bytes, guestAddress }: { readonly guestAddress: number; readonly bytes: number }
  ): Result.Result<MemoryRegion.UnmappedRegion, VirtualMachineErrorReason> => {
    const decoded = decodeUnmapped({ guestAddress, bytes })
    if (Result.isFailure(decoded)) {
      return Result.fail({
        _tag: "BadOption",
        option: "region",
        value: guestAddress,
        expected: `a page-aligned guest address with a page-aligned size, below 2^52 (${decoded.failure.message})`
      })
    }
    if (guestAddress + bytes > 2 ** profile.addressBits) {
      return Result.fail(
        beyond(profile, "bytes of guest address space", guestAddress + bytes, 2 ** profile.addressBits)
      )
    }
    return Result.succeed(decoded.success)
  }

  const isMapped = ({ address, bytes }: ServiceRegion): boolean =>
    guestMap.regions.some((region) =>
      region.serviceAddress < address + bytes && address < region.serviceAddress + region.bytes
    )

  // No vCPU runs while memory is unmapped, so nothing of the guest still holds a page that is given back.
  const releaseUnmapped = Effect.suspend(() =>
    Effect.forEach([...grants].filter(([region]) => !isMapped(region)), ([region, scope]) => {
      grants.delete(region)
      return Scope.close(scope, Exit.void)
    }, { discard: true })
  )

  // A hypervisor that refuses to map a region may have mapped it. It maps all of it or nothing, and takes away only what
  // is mapped: -EINVAL tells that nothing is.
  const isTakenAway = (mapped: MemoryRegion.MappedRegion): Effect.Effect<boolean> =>
    Effect.match(hypercalls.setMemoryRegions(vmId, [MemoryRegion.toUnmapOp(mapped)]), {
      onSuccess: () => true,
      onFailure: ({ reason }) => reason._tag === "Refused" && reason.result === -Errno.EINVAL
    })

  const keepUntilTheEnd = (scope: Scope.Closeable): void => {
    for (const [region, each] of grants) if (each === scope) grants.delete(region)
  }

  const map: VmMemory["map"] = (wanted) =>
    Effect.suspend(() => {
      const { bytes, guestAddress } = wanted
      const checked = check(wanted)
      if (Result.isFailure(checked)) return refuse(checked.failure)
      const taken = guestMap.overlapping(guestAddress, bytes)
      if (taken !== undefined) {
        return refuse({
          _tag: "Overlap",
          guestAddress,
          bytes,
          mappedAddress: taken.guestAddress,
          mappedBytes: taken.bytes
        })
      }
      const total = guestMap.regions.reduce((sum, region) => sum + region.bytes, bytes)
      if (total > profile.maxRamBytes) return refuse(beyond(profile, "bytes of RAM", total, profile.maxRamBytes))
      if (profile.mapping === "OneBlockFromZero" && (guestAddress !== 0 || guestMap.regions.length > 0)) {
        return refuse(beyond(profile, "RAM at guest address", guestAddress, "one block from address 0"))
      }
      // What the guest never got is given back at once; the rest when none of it is mapped any more, or the VM ends.
      const mapIn = (scope: Scope.Closeable) => {
        let mayBeMapped = false
        return memory.allocate({ bytes, purpose: { _tag: "GuestRam", vmId } }).pipe(
          Scope.provide(scope),
          Effect.mapError(refused("get RAM")),
          Effect.tap((region) => Effect.sync(() => grants.set(region, scope))),
          Effect.flatMap((region) =>
            Effect.fromResult(decodeMapped({
              guestAddress,
              serviceAddress: region.address,
              bytes,
              rights: wanted.rights ?? MemoryRegion.readWriteExecute,
              cacheType: wanted.cacheType ?? "WriteBack"
            })).pipe(Effect.mapError(refused("map RAM")))
          ),
          Effect.tap((mapped) =>
            hypercalls.setMemoryRegions(vmId, [MemoryRegion.toMapOp(mapped)]).pipe(
              Effect.tapError((error) =>
                error.reason._tag === "Refused"
                  ? Effect.map(isTakenAway(mapped), (isGone) => {
                    mayBeMapped = !isGone
                  })
                  : Effect.void
              ),
              Effect.mapError(refused("map RAM"))
            )
          ),
          Effect.tap((mapped) => Effect.sync(() => guestMap.add(mapped))),
          Effect.onExit((exit) => {
            // Guard: destroy-order
            if (mayBeMapped) return Effect.sync(() => keepUntilTheEnd(scope))
            // Guard: cve-2022-1651
            if (Exit.isFailure(exit)) return Effect.andThen(Scope.close(scope, exit), releaseUnmapped)
            return Effect.void
          })
        )
      }
      return Effect.uninterruptible(Effect.flatMap(Scope.fork(memoryScope), mapIn))
    })

  const unmap: VmMemory["unmap"] = (wanted) =>
    Effect.suspend(() => {
      const checked = check(wanted)
      if (Result.isFailure(checked)) return refuse(checked.failure)
      const region = checked.success
      if (guestMap.translate(wanted.guestAddress, wanted.bytes) === undefined) {
        return refuse({ _tag: "NotMapped", guestAddress: wanted.guestAddress, bytes: wanted.bytes })
      }
      if (profile.keepsRamMapped === true) {
        return refuse(beyond(profile, "removal of RAM at guest address", wanted.guestAddress, "RAM until the VM's end"))
      }
      if (profile.mapping === "OneBlockFromZero") {
        return refuse(
          beyond(profile, "removal of RAM at guest address", wanted.guestAddress, "one block from address 0")
        )
      }
      return hypercalls.setMemoryRegions(vmId, [MemoryRegion.toUnmapOp(region)]).pipe(
        Effect.mapError(refused("unmap RAM")),
        Effect.tap(() => Effect.sync(() => guestMap.remove(region))),
        Effect.andThen(releaseUnmapped),
        Effect.uninterruptible
      )
    })

  return { guestMap, map, unmap }
}
