// A client that patches its copy of an XCAP document by what it is told (RFC 5874), with g8-xml-patch, an implementation of RFC 5261.
// node patch.js < {"document", "etag", "sel", "diffs": [XCAP diff documents], "current"}; says
// {"etag", "applied": operations, "same": whether the copy is the current document by now, "document"}.
const path = require('path');
const Module = require('module');
const { DOMParserImpl: DOMParser, XMLSerializerImpl: XMLSerializer } = require('xmldom-ts');

// Its package has nothing but its TypeScript.
const folder = path.dirname(require.resolve('g8-xml-patch/package.json'));
const built = require('esbuild').buildSync({
  entryPoints: [path.join(folder, 'src/index.ts')], bundle: true, platform: 'node', format: 'cjs', write: false,
});
const library = new Module(path.join(folder, 'built.js'));
library._compile(built.outputFiles[0].text, library.filename || folder);
const { Patch } = library.exports;

const DIFF = 'urn:ietf:params:xml:ns:xcap-diff';
const apply = (patch, document) => new Patch().load(patch).apply(document).toString();
const input = JSON.parse(require('fs').readFileSync(0, 'utf8'));
let { document, etag } = input;
let applied = 0;
for (const diff of input.diffs) {
  const root = new DOMParser().parseFromString(diff, 'text/xml').documentElement;
  for (const change of Array.from(root.getElementsByTagNameNS(DIFF, 'document'))) {
    if (change.getAttribute('sel') !== input.sel) continue;
    if (change.getAttribute('previous-etag') !== etag) throw new Error(`of ${change.getAttribute('previous-etag')}, not of ${etag}`);
    const operations = ['add', 'replace', 'remove'].reduce((n, name) => n + change.getElementsByTagNameNS(DIFF, name).length, 0);
    if (operations) document = apply(new XMLSerializer().serializeToString(change), document);
    applied += operations;
    etag = change.getAttribute('new-etag');
  }
}
// Both as the library writes them.
const same = apply('<diff/>', document) === apply('<diff/>', input.current);
console.log(JSON.stringify({ etag, applied, same, document }));
