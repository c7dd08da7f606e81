/** Law 17: any sequence of hypercalls, legal or not, gives the results and states of a model; a refusal changes nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import { Resume, VcpuState } from "../../../src/services/Hypervisor.ts"
import { add, EINVAL, ENOTTY, EPERM, makeRaw, NO_VM, NOWHERE, type Raw } from "../../support/gate.ts"
import { onSimulated } from "../../support/machines.ts"

const MAX_VMS = 3

// Mostly one VM, so that sequences get far in its life.
const vm = {
  vmId: Schema.Union([Schema.Literal(1), Schema.Literal(1), Schema.Literals([1, 2, 3]), Schema.Literals([0, 4])])
}
const Call = Schema.TaggedUnion({
  Create: { vcpus: Schema.Literals([1, 2, 16, 17]) },
  Destroy: vm,
  Start: vm,
  Pause: vm,
  Reset: vm,
  Resume: vm,
  SetRegisters: { ...vm, vcpu: Schema.Literals([0, 1, 2, 16, 0xffff]), isLegal: Schema.Boolean },
  SetPage: { ...vm, isMemory: Schema.Boolean },
  Notify: { ...vm, vcpu: Schema.Literals([0, 1, 15, 16, 0x1_0000]) },
  Regions: { ...vm, sizes: Schema.Array(Schema.Literals([0, 0x1000, 0x2000, 0x800])).check(Schema.isMaxLength(3)) },
  Irq: { ...vm, line: Schema.Literals([0, 15, 16]), op: Schema.Literals([0, 3, 4]) },
  Unknown: {}
})
type Call = typeof Call.Type

interface ModelVm {
  readonly vcpus: number
  readonly state: "Created" | "Running" | "Paused"
  /** Whether it ran before it was paused. */
  readonly ran: boolean
  readonly hasPage: boolean
}

type Model = ReadonlyMap<number, ModelVm>

/** The whole of ACRN's rules once more, as short as they can be said: the result, and the VM afterwards. */
const expected = (model: Model, call: Call): readonly [result: number, next: Model, created?: number] => {
  if (call._tag === "Unknown") return [ENOTTY, model]
  if (call._tag === "Create") {
    if (call.vcpus > 16) return [EPERM, model]
    const free = [1, 2, 3].find((id) => !model.has(id))
    if (free === undefined) return [0, model, NO_VM]
    const made: ModelVm = { vcpus: call.vcpus, state: "Created", ran: false, hasPage: false }
    return [0, new Map([...model, [free, made]]), free]
  }
  const self = model.get(call.vmId)
  if (self === undefined) return [EINVAL, model]
  const become = (change: Partial<ModelVm>, result = 0): readonly [number, Model] => [
    result,
    new Map([...model, [call.vmId, { ...self, ...change }]])
  ]
  const refused = (result = EPERM): readonly [number, Model] => [result, model]
  switch (call._tag) {
    case "Destroy":
      return self.state === "Paused" ? [0, new Map([...model].filter(([id]) => id !== call.vmId))] : refused()
    case "Start":
      return self.state === "Created" && self.hasPage ? become({ state: "Running" }) : refused()
    case "Pause":
      return become({ state: "Paused", ran: self.state === "Running" || (self.state === "Paused" && self.ran) })
    case "Reset":
      return self.state === "Paused" ? become({ state: "Created", ran: false }) : refused()
    case "Resume":
      return self.state === "Paused" && self.ran ? become({ state: "Running" }) : refused()
    case "SetRegisters":
      return self.state !== "Running" && call.vcpu < self.vcpus && call.isLegal ? become({}) : refused()
    case "SetPage":
      if (self.state !== "Created") return refused()
      return call.isMemory ? become({ hasPage: true }) : become({ hasPage: false }, EPERM)
    case "Notify":
      return self.hasPage && call.vcpu % 0x1_0000 < self.vcpus ? become({}) : refused()
    case "Regions":
      if (call.sizes.length === 0) return refused()
      return refused(call.sizes.includes(0x800) ? EINVAL : 0)
    case "Irq":
      return refused(call.line < 16 && call.op < 4 ? 0 : EINVAL)
  }
}

const legal = VcpuRegisters.flat32({ entry: 0x1000 })

const perform = (raw: Raw, page: number, ram: number, call: Call) => {
  switch (call._tag) {
    case "Create":
      return Effect.map(
        raw.create((1n << BigInt(call.vcpus)) - 1n),
        ({ result, vmId }) => result === 0 ? [result, vmId] : [result]
      )
    case "Destroy":
      return raw.destroy(call.vmId)
    case "Start":
      return raw.start(call.vmId)
    case "Pause":
      return raw.pause(call.vmId)
    case "Reset":
      return raw.reset(call.vmId)
    case "Resume":
      return Effect.flatMap(Resume, ({ resume }) => resume(call.vmId))
    case "SetRegisters":
      return raw.setRegisters(call.vmId, call.vcpu, call.isLegal ? legal : { ...legal, cr0: 1n })
    case "SetPage":
      return raw.setPage(call.vmId, call.isMemory ? BigInt(page + call.vmId * 0x1000) : NOWHERE)
    case "Notify":
      return raw.notify(call.vmId, BigInt(call.vcpu))
    case "Regions":
      return raw.regions(call.vmId, call.sizes.map((size) => add(0x10_0000, ram, size)))
    case "Irq":
      return raw.irq(call.vmId, call.line, call.op)
    case "Unknown":
      return raw.gate.call(0x8000_0099, 1n, 1n)
  }
}

const ready: ReadonlyArray<Call> = [
  { _tag: "Create", vcpus: 2 },
  { _tag: "SetPage", vmId: 1, isMemory: true }
]
const anyCalls = Arbitrary.map(
  Arbitrary.all([
    Arbitrary.schema(Schema.Boolean),
    Arbitrary.array(Arbitrary.schema(Call), { minLength: 20, maxLength: 80 })
  ]),
  ([isReady, calls]) => isReady ? [...ready, ...calls] : calls
)

describe("any sequence of hypercalls", () => {
  it.effect.prop(
    "gives the model's results and states",
    [anyCalls],
    ([calls]) =>
      Effect.gen(function*() {
        const raw = yield* makeRaw
        const registers = yield* VcpuState
        const allocate = (bytes: number) =>
          Effect.map(raw.memory.allocate({ bytes, purpose: { _tag: "IoRequestPage" } }), ({ address }) => address)
        const page = yield* allocate(0x5000)
        const ram = yield* allocate(0x2000)
        let model: Model = new Map()
        for (const call of calls) {
          const [result, next, created] = expected(model, call)
          const given = yield* perform(raw, page, ram, call)
          assert.deepStrictEqual<unknown>(
            given,
            call._tag === "Create" ? [result, created].slice(0, created ? 2 : 1) : result
          )
          model = next
          // What a stranger can see of the state: whether each VM is there, and whether it runs.
          for (let id = 0; id <= MAX_VMS + 1; id++) {
            const self = model.get(id)
            const seen = yield* registers.read(id, 0)
            assert.strictEqual(seen !== undefined, self !== undefined && self.state !== "Running")
          }
          if ((call._tag === "SetPage" && call.isMemory || call._tag === "Reset") && result === 0) {
            if (model.get(call.vmId)!.hasPage) {
              assert.isTrue(raw.states(page + call.vmId * 0x1000).every((state) => state === 3), "all slots FREE")
            }
          }
        }
      }).pipe(onSimulated({ maxVms: MAX_VMS })),
    { arbitrary: { runs: 150 } }
  )
})
