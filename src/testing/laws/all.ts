/** The laws in order of their numbers. */
import type { Law } from "../Law.ts"
import { alwaysAnswered } from "./AlwaysAnswered.ts"
import { clientEnd } from "./ClientEnd.ts"
import { completions } from "./Completions.ts"
import { handlerFreedom } from "./HandlerFreedom.ts"
import { hypercallSequences } from "./HypercallSequences.ts"
import { memoryMap } from "./MemoryMap.ts"
import { nobodyDelayed } from "./NobodyDelayed.ts"
import { oneCompletion } from "./OneCompletion.ts"
import { pauseResume } from "./PauseResume.ts"
import { rangeOwnership } from "./RangeOwnership.ts"
import { rawRequests } from "./RawRequests.ts"
import { resetDrops } from "./ResetDrops.ts"
import { sameTrace } from "./SameTrace.ts"
import { singleFetch } from "./SingleFetch.ts"
import { slotStates } from "./SlotStates.ts"
import { stringAccess } from "./StringAccess.ts"
import { structureCodecs } from "./StructureCodecs.ts"
import { upcallDelivery } from "./UpcallDelivery.ts"
import { wholeAccess } from "./WholeAccess.ts"

export const laws: ReadonlyArray<Law> = [
  slotStates,
  singleFetch,
  oneCompletion,
  clientEnd,
  pauseResume,
  resetDrops,
  upcallDelivery,
  handlerFreedom,
  alwaysAnswered,
  nobodyDelayed,
  rawRequests,
  rangeOwnership,
  wholeAccess,
  stringAccess,
  completions,
  sameTrace,
  hypercallSequences,
  memoryMap,
  structureCodecs
].toSorted((a, b) => a.number - b.number)
