/** What a test needs to know of this machine's KVM before it uses it. */
import { Effect, Layer } from "effect"
import * as Kvm from "../../src/layers/Kvm.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { laws } from "../../src/testing/Laws.ts"

const problem = await Layer.build(Kvm.layer).pipe(
  Effect.scoped,
  Effect.match({ onFailure: ({ message }) => message, onSuccess: () => undefined }),
  Effect.runPromise
)

/** Why KVM cannot be used here, if it cannot. */
export const kvmProblem = (): string | undefined => problem

/** For `Laws.suite`: every law, with the reason, where there is no KVM to try it on. */
export const exceptWithoutKvm: Readonly<Record<number, string>> = problem === undefined
  ? {}
  : Object.fromEntries(laws.map(({ number }) => [number, problem]))

/** KVM with a `VirtualMachine` of its own, and no interrupt controllers, so that a guest that halts has ended. */
export const buildKvm = (placement: "Inline" | "Worker") =>
  Effect.suspend(() => {
    const hypervisor = Kvm.layerWith({ interruptController: "None", placement })
    return Layer.build(Layer.fresh(Layer.provideMerge(VirtualMachine.layer, hypervisor)))
  })
