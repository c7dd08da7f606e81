/** The scenarios of `npm run explore`, in the order in which they are run. */
import { clients } from "./clients.ts"
import { life } from "./life.ts"
import { random } from "./random.ts"
import type { Scenario } from "./Scenario.ts"
import { simulated } from "./simulated.ts"
import { upcallScenarios } from "./upcalls.ts"

export const scenarios: ReadonlyArray<Scenario> = [...clients, ...life, ...upcallScenarios, ...simulated, ...random]
