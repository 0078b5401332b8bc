// @ts-check
// The report's page: its viewer, and in the table below the run that the viewer shows.

async function main() {
  const root = /** @type {HTMLElement} */ (document.querySelector("#viewer"));
  await mountViewer(root, JSON.parse(document.querySelector("#data")?.textContent ?? ""), {
    onselect: ({ run }) => {
      document.querySelectorAll("#table tbody tr").forEach((row) => {
        row.classList.toggle("chosen", row.firstElementChild?.textContent === run);
      });
    },
  });
  document.body.dataset.ready = "yes";
}

main();
