// Runs first in every npm script: says in one place why an old Node.js cannot go on, in syntax that an old Node.js can read.
import { readFileSync } from "node:fs"

const required = Number(
  /\d+/.exec(JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).engines.node)[0]
)
const found = process.versions.node

if (Number(found.split(".")[0]) < required) {
  process.stderr.write(
    [
      `upcall needs Node.js ${required} or newer, and this script runs on Node.js ${found} (${process.execPath}, ${process.platform}-${process.arch}).`,
      "",
      "On Linux x64 and arm64, `npm ci` installs a fitting Node.js into node_modules and npm scripts use it by themselves:",
      "  npm ci            (not with --omit=optional)",
      "  npm run <script>  (not the command by itself)",
      `On another system, install Node.js ${required} from https://nodejs.org, or with your version manager, put it first in PATH and run \`npm ci\` again.`,
      ""
    ].join("\n")
  )
  process.exit(1)
}
