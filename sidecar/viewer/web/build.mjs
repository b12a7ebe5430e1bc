// Bundles the viewer into ../assets, or into the folder that is named: app.js, app.css, and the licences of what is in it.
// The same sources and lock file give the same bytes, which a test compares with what is committed.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const folder = process.argv[2] ?? "../assets";

await build({
  entryPoints: [
    { in: "src/main.tsx", out: "app" },
    { in: "src/style/app.css", out: "app" },
  ],
  outdir: folder,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none", // they stand in THIRD_PARTY.txt, whole
  logLevel: "warning",
});

const wanted = JSON.parse(await readFile("package.json", "utf8")).dependencies;
const parts = ["app.js contains the following libraries.\n"];
for (const name of Object.keys(wanted).sort()) {
  const home = join("node_modules", name);
  const about = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
  const licence = (await readFile(join(home, "LICENSE"), "utf8")).trim();
  parts.push(`${"-".repeat(78)}\n${name} ${about.version} (${about.license})\n\n${licence}\n`);
}
await writeFile(join(folder, "THIRD_PARTY.txt"), parts.join("\n"));
