/** Runs on the real driver: a VM is reset while a request of it is held by hand. The driver completes it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { MemoryAccess, MemoryType } from "../../../../src/domain/abi/MemoryRegionBatch.ts"
import * as Acrn from "../../../../src/layers/Acrn.ts"
import * as FlatBinary from "../../../../src/layers/images/FlatBinary.ts"
import * as Hypercalls from "../../../../src/services/Hypercalls.ts"
import * as IoRequestBuffer from "../../../../src/services/IoRequestBuffer.ts"
import { ServiceMemory } from "../../../../src/services/ServiceMemory.ts"
import { Upcalls } from "../../../../src/services/Upcalls.ts"
import { report } from "./report.ts"

const OUT_FOREVER = new Uint8Array(Buffer.from("66ba0005eefec0ebfb", "hex"))

const program = Effect.gen(function*() {
  const hypercalls = yield* Hypercalls.make
  const memory = yield* ServiceMemory
  const upcalls = yield* Upcalls
  const page = yield* memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
  const { vmId, vcpus } = yield* hypercalls.createVm({ cpuAffinity: 1n })
  const ram = yield* memory.allocate({ bytes: 1 << 20, purpose: { _tag: "GuestRam", vmId } })
  Result.getOrThrow(memory.write(ram.address + 0x1000, OUT_FOREVER))
  const plan = yield* FlatBinary.plan({ bytes: OUT_FOREVER, address: 0x1000, memoryBytes: 1 << 20 })
  yield* hypercalls.setIoRequestBuffer(vmId, page.address)
  yield* hypercalls.setMemoryRegions(vmId, [{
    type: 0,
    attr: MemoryAccess.All | MemoryType.WriteBack,
    userVmPa: 0n,
    serviceVmPa: BigInt(ram.address),
    size: 1n << 20n
  }])
  yield* hypercalls.setVcpuRegs(vmId, 0, plan.registers)
  const slots = yield* IoRequestBuffer.make({ vmId, page: page.address, vcpus })
  const upcallsSeen = { times: 0 }
  yield* upcalls.register(() => {
    upcallsSeen.times++
  })
  const next = Effect.gen(function*() {
    for (let i = 0; i < 5000; i++) {
      const pending = yield* slots.pending(0)
      if (pending !== undefined) return pending
      yield* Effect.sleep(1)
    }
    return yield* Effect.die("no request came")
  })
  yield* hypercalls.startVm(vmId)
  const answered = yield* (yield* next).answer(undefined)
  const held = yield* (yield* next).claim
  report("views", [answered.state, (yield* slots.inspect).slots[0]])
  yield* hypercalls.pauseVm(vmId)
  yield* hypercalls.resetVm(vmId)
  report("afterReset", (yield* slots.inspect).slots[0]!.state)
  const late = yield* Effect.result(held.complete(undefined))
  report("late", Result.isFailure(late) ? late.failure.reason._tag : "Completed")
  const before = upcallsSeen.times
  yield* hypercalls.startVm(vmId)
  // The request is left alone until the waiting thread has told of it.
  for (let i = 0; i < 5000 && upcallsSeen.times === before; i++) yield* Effect.sleep(1)
  report("nextLife", upcallsSeen.times > before)
  yield* (yield* next).answer(undefined)
  yield* (yield* next).answer(undefined)
  yield* hypercalls.pauseVm(vmId)
  yield* hypercalls.destroyVm(vmId)
  const driver = yield* Acrn.Driver
  report("driver", (yield* driver.refusals).map(({ message }) => message))
})

const exit = await Effect.runPromiseExit(program.pipe(Effect.scoped, Effect.provide(Acrn.layer)))
report("exit", Exit.isSuccess(exit) ? "success" : String(exit.cause))
