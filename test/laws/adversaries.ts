/** What stands between a hypervisor and the laws, and which laws cannot be tried with it there. */
import { Layer } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as FaultyGate from "../../src/testing/FaultyGate.ts"
import * as FaultyUpcalls from "../../src/testing/FaultyUpcalls.ts"
import * as HostilePage from "../../src/testing/HostilePage.ts"
import * as Laws from "../../src/testing/Laws.ts"

const { StartVm: _, ...otherCalls } = HypercallId

const EVERY_BYTE = "the law compares every byte of the page, and the peer changes some"

/**
 * Registers the laws under each adversary, once for each seed. The worlds of law 4 have dying clients of their own:
 * `DyingClients` would kill others than the reference knows of.
 */
export const suites = <R, E>(
  name: string,
  hypervisor: Layer.Layer<R | Hypervisor, E>,
  { except, runs, seeds }: {
    readonly runs: number
    readonly seeds: ReadonlyArray<number>
    /** Laws that cannot be tried at all, with the reason. */
    readonly except?: Readonly<Record<number, string>>
  }
): void => {
  for (const seed of seeds) {
    const over = <A, E2>(adversary: Layer.Layer<A, E2, Hypervisor>) => Layer.provideMerge(adversary, hypervisor)
    const options = { runs, seed, except: { ...except } }

    Laws.suite(
      `${name} with a survivable peer, seed ${seed}`,
      over(HostilePage.layer({ mode: "Survivable", seed })),
      {
        ...options,
        except: {
          1: EVERY_BYTE,
          2: EVERY_BYTE,
          3: EVERY_BYTE,
          6: EVERY_BYTE,
          11: EVERY_BYTE,
          12: "the law looks at pending requests itself, and what was read once is what the peer changes",
          17: EVERY_BYTE,
          ...except
        }
      }
    )

    Laws.suite(
      `${name} with a lossless faulty line, seed ${seed}`,
      over(FaultyUpcalls.layer({ mode: "Lossless", seed, rate: 0.5 })),
      options
    )

    Laws.suite(
      `${name} with a lossy line and a rescan, seed ${seed}`,
      over(FaultyUpcalls.layer({ mode: "Lossy", seed, rate: 0.05 })),
      {
        ...options,
        machines: Layer.orDie(VirtualMachine.layerWith({ rescan: "1 millis" }))
      }
    )

    Laws.suite(
      `${name} with late hypercalls, seed ${seed}`,
      over(FaultyGate.layer({
        seed,
        rate: 0.3,
        faults: { Late: 1 },
        // A guest that runs before its START returned is no subject of the laws that pause it from within.
        ids: Object.values(otherCalls)
      })),
      { ...options, except: { 17: "a late notification succeeds, whatever the hypervisor then says to it", ...except } }
    )
  }
}
