import { describeAgainstC } from "../../support/cLayout.ts"
import { constants, structures } from "./structures.ts"

describeAgainstC("the tables against C", {
  structures,
  constants,
  headers: ["<linux/acrn.h>", "\"acrn_drv_layout.h\""],
  folder: import.meta.dirname,
  probe: "#include <linux/acrn.h>\n",
  missing: "that finds <linux/acrn.h>"
})
