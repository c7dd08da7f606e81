/**
 * A test runner for Stryker: vitest's, but each mutant is run against the tests of the guard's own bug classes alone, and
 * mutants that do not take a guard out are not run at all. So a kill says that the right test noticed, and the whole run
 * is short. Loaded by Stryker's worker processes.
 */
import { strykerPlugins } from "@stryker-mutator/vitest-runner"
import { relative } from "node:path"
import type { Guard } from "./markers.ts"
import { roleOf } from "./removal.ts"

/** What the main process tells the workers through Stryker's options. */
export interface GuardOptions {
  /** The project's folder. */
  readonly root: string
  /** Each guard with the test files of its classes, relative to the project. */
  readonly guards: ReadonlyArray<Guard & { readonly tests: ReadonlyArray<string> }>
}

// The parts of Stryker's plugin API that are used: its package is not a dependency of ours.
interface Location {
  readonly start: { readonly line: number; readonly column: number }
  readonly end: { readonly line: number; readonly column: number }
}
interface MutantRun {
  readonly activeMutant: {
    readonly fileName: string
    readonly location: Location
    readonly mutatorName: string
    readonly replacement: string
  }
  readonly testFilter?: ReadonlyArray<string>
}
interface Runner {
  readonly capabilities: () => unknown
  readonly init: () => Promise<void>
  readonly dryRun: (options: unknown) => Promise<unknown>
  readonly mutantRun: (options: MutantRun) => Promise<unknown>
  readonly dispose: () => Promise<void>
}
interface Injector {
  readonly resolve: (token: "options") => { readonly guardOptions: GuardOptions }
}

const [vitestPlugin] = strykerPlugins
const makeVitestRunner = vitestPlugin!.factory as unknown as (injector: Injector) => Runner

const NOT_RUN = { status: "survived", nrOfTests: 0 }

const makeRunner = (injector: Injector): Runner => {
  const { guards, root } = injector.resolve("options").guardOptions
  const vitest = makeVitestRunner(injector)
  return {
    capabilities: () => vitest.capabilities(),
    init: () => vitest.init(),
    dryRun: (options) => vitest.dryRun(options),
    mutantRun: (run) => {
      const { fileName, location, mutatorName, replacement } = run.activeMutant
      const mutation = {
        file: relative(root, fileName).replaceAll("\\", "/"),
        // Lines count from 0 here.
        start: { line: location.start.line + 1, column: location.start.column },
        end: { line: location.end.line + 1, column: location.end.column },
        mutator: mutatorName,
        replacement
      }
      const guard = guards.find((each) => roleOf(each, mutation) !== undefined)
      const tests = run.testFilter?.filter((id) => guard?.tests.some((file) => id.includes(file))) ?? []
      return tests.length === 0 ? Promise.resolve(NOT_RUN) : vitest.mutantRun({ ...run, testFilter: tests })
    },
    dispose: () => vitest.dispose()
  }
}
makeRunner.inject = ["$injector"] as const

export { pluginOfGuards as strykerPlugins }

const pluginOfGuards = [{ kind: "TestRunner", name: "guards", factory: makeRunner }]
