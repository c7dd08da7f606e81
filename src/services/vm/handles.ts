/**
 * The handles of one VM, one shape per state. Each is made for one generation of the VM and refuses to act in another.
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { hex } from "../../domain/Address.ts"
import { type ImagePlan, segmentSize } from "../../domain/ImagePlan.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import type { Dispatcher } from "../dispatch/Dispatcher.ts"
import type { HypercallGate } from "../HypercallGate.ts"
import type { Hypercalls } from "../Hypercalls.ts"
import { Resume, VcpuState } from "../Hypervisor.ts"
import * as IoRequestBuffer from "../IoRequestBuffer.ts"
import { Machine } from "../Machine.ts"
import { VirtualMachineError } from "../VirtualMachineError.ts"
import type { CreatedVm, PausedVm, RunningVm, StoppedVm, Vm } from "../Vm.ts"
import { beyond } from "./capability.ts"
import type { VmMemory } from "./memory.ts"
import { refuse, refusedAt } from "./refusal.ts"
import type { VmCore } from "./VmCore.ts"
import { wholly } from "./wholly.ts"

// What goes to memory at a time where an image has zeros.
const zeros = new Uint8Array(0x1_0000)

interface Parts {
  readonly core: VmCore
  readonly deviceScope: Scope.Scope
  readonly dispatcher: Dispatcher
  readonly gate: HypercallGate["Service"]
  readonly hypercalls: Hypercalls["Service"]
  readonly machine: Machine["Service"]
  readonly resetDevices: Effect.Effect<void>
  readonly vmMemory: VmMemory
}

/** Makes the first handle of a VM: Created. */
export const makeHandles = (parts: Parts): CreatedVm => {
  const { core, deviceScope, dispatcher, gate, hypercalls, machine, resetDevices, vmMemory } = parts
  const vmId = machine.vmId
  const refused = (step: string) => refusedAt(core.name, step)

  const checkVcpu = (vcpu: number) =>
    Number.isInteger(vcpu) && vcpu >= 0 && vcpu < machine.vcpus ? Effect.void : refuse({
      _tag: "BadOption",
      option: "vcpu",
      value: vcpu,
      expected: `a vCPU of this VM, 0 to ${machine.vcpus - 1}`
    })

  const common: Vm = {
    id: vmId,
    name: core.name,
    vcpus: machine.vcpus,
    memoryBytes: machine.memoryBytes,
    memory: machine.memory,
    io: dispatcher.service,
    requests: IoRequestBuffer.fromPage(dispatcher.page, dispatcher.pageUse),
    machine,
    state: Effect.sync(() => core.state),
    transitions: Effect.sync(() => [...core.transitions]),
    attach: <A, E, R>(device: Effect.Effect<A, E, R>) =>
      Effect.gen(function*() {
        const scope = yield* Scope.fork(deviceScope)
        return yield* device.pipe(
          Effect.provideService(Machine, machine),
          Effect.provideService(Scope.Scope, scope),
          // A device that could not be made wholly is unmade: a half of it must not answer the guest.
          wholly(scope)
        )
      }) as Effect.Effect<A, E, Exclude<R, Machine | Scope.Scope>>,
    registers: (vcpu) =>
      Effect.gen(function*() {
        yield* checkVcpu(vcpu)
        const unreadable = (problem: string) =>
          refuse({ _tag: "Refused", vm: core.name, step: `read the registers of vCPU ${vcpu}`, problem })
        const state = yield* VcpuState
        if (core.isClosed) return yield* unreadable("its scope was closed; read them before")
        const registers = yield* state.read(vmId, vcpu)
        if (registers !== undefined) return registers
        return yield* unreadable(
          "they can be read while the VM is paused and the vCPU does not wait inside an instruction"
        )
      })
  }

  const checkRegisters = (vcpu: number, registers: VcpuRegisters.VcpuRegisters) =>
    Effect.gen(function*() {
      yield* checkVcpu(vcpu)
      const checked = VcpuRegisters.check(registers)
      if (Result.isFailure(checked)) {
        return yield* refuse({ _tag: "BadRegisters", vcpu, problem: checked.failure.message })
      }
      const mode = VcpuRegisters.modeOf(registers)
      if (!gate.profile.modes.includes(mode)) {
        return yield* refuse(beyond(gate.profile, "a vCPU start in mode", mode, gate.profile.modes.join(" or ")))
      }
    })

  const giveRegisters = (vcpu: number, registers: VcpuRegisters.VcpuRegisters) =>
    hypercalls.setVcpuRegs(vmId, vcpu, registers).pipe(
      Effect.mapError(refused(`set the registers of vCPU ${vcpu}`))
    )

  const setRegisters = (vcpu: number, registers: VcpuRegisters.VcpuRegisters) =>
    Effect.andThen(checkRegisters(vcpu, registers), giveRegisters(vcpu, registers))

  const write = (address: number, bytes: Uint8Array) =>
    machine.memory.write(address, bytes).pipe(Effect.mapError(refused("load its image")))

  const load = (plan: ImagePlan) =>
    Effect.gen(function*() {
      for (const segment of plan.segments) {
        const bytes = segmentSize(segment)
        if (vmMemory.guestMap.translate(segment.address, bytes) === undefined) {
          return yield* refuse({
            _tag: "BadImage",
            problem: `segment "${segment.name}" at guest address ${hex(segment.address)} with ` +
              `${bytes} bytes is not wholly in RAM; give the VM more memory, or load it elsewhere`
          })
        }
      }
      yield* checkRegisters(0, plan.registers)
      for (const segment of plan.segments) {
        yield* write(segment.address, segment.bytes)
        const end = segment.address + segmentSize(segment)
        for (let at = segment.address + segment.bytes.length; at < end; at += zeros.length) {
          yield* write(at, zeros.subarray(0, Math.min(zeros.length, end - at)))
        }
      }
      yield* giveRegisters(0, plan.registers)
    })

  type At = { readonly generation: number; readonly state: string }

  const stopped = (at: At): StoppedVm => ({
    ...common,
    setRegisters: (vcpu, registers) => core.whileCurrent(at, setRegisters(vcpu, registers)),
    load: (plan) => core.whileCurrent(at, load(plan)),
    mapMemory: (region) => core.whileCurrent(at, vmMemory.map(region)),
    unmapMemory: (region) => core.whileCurrent(at, vmMemory.unmap(region))
  })

  const pauseHypercall = hypercalls.pauseVm(vmId).pipe(Effect.mapError(refused("be paused")))

  const createdVm = (): CreatedVm => {
    const at: At = { generation: core.generation, state: "Created" }
    const start = hypercalls.startVm(vmId).pipe(Effect.mapError(refused("start")))
    return {
      ...stopped(at),
      _tag: "Created",
      start: Effect.map(core.take(at, "Start", Effect.void, start), runningVm),
      pause: Effect.map(core.take(at, "Pause", Effect.void, pauseHypercall), pausedVm)
    }
  }

  const runningVm = (): RunningVm => {
    const at: At = { generation: core.generation, state: "Running" }
    const ended = core.ended
    const pauseWithin = (deadline?: Duration.Input) => {
      const drained = dispatcher.pause(deadline).pipe(
        Effect.mapError((error) =>
          new VirtualMachineError({ reason: { _tag: "NotDrained", vm: core.name, problem: error.message } })
        )
      )
      const paused = Effect.tapError(pauseHypercall, () => dispatcher.unpause)
      return Effect.map(core.take(at, "Pause", drained, paused, dispatcher.unpause), pausedVm)
    }
    return {
      ...common,
      _tag: "Running",
      ended: Deferred.await(ended),
      pause: pauseWithin(),
      pauseWithin
    }
  }

  const pausedVm = (): PausedVm => {
    const at: At = { generation: core.generation, state: "Paused" }
    const resume = Effect.gen(function*() {
      const capability = yield* Resume
      const result = yield* capability.resume(vmId)
      if (result < 0) {
        return yield* refuse({
          _tag: "Refused",
          vm: core.name,
          step: "resume",
          problem: `${gate.profile.name} answered ${result}`
        })
      }
      yield* dispatcher.resume
    })
    const reset = Effect.gen(function*() {
      yield* hypercalls.resetVm(vmId).pipe(Effect.mapError(refused("be reset")))
      yield* dispatcher.forgetAll
      yield* resetDevices
      core.endLife()
      yield* dispatcher.resume
    })
    return {
      ...stopped(at),
      _tag: "Paused",
      resume: Effect.map(core.take(at, "Resume", Effect.void, resume), runningVm),
      reset: Effect.map(core.take(at, "Reset", Effect.void, reset), createdVm)
    }
  }

  return createdVm()
}
