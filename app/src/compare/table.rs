//! The results as a table: a column for each transport.

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::{
    column::Column,
    format::transport_label,
    plot::Plot,
    results::{METRICS, Results, health_label},
};
use crate::reactive::text;

/// The results of a run in this page, or of a link.
#[component]
pub(crate) fn Table(results: RwSignal<Option<Results>>) -> impl IntoView {
    let transports = Memo::new(move |_| {
        results.with(|results| {
            let transports = results.as_ref().map(|results| results.transports.iter());
            transports.map(|of| of.map(|result| result.transport).collect::<Vec<_>>())
        })
    });
    // The table is rendered again only for other transports. Otherwise only its texts change.
    move || transports.get().map(|transports| table(&transports, results))
}

fn table(transports: &[Transport], results: RwSignal<Option<Results>>) -> impl IntoView + use<> {
    let columns: Vec<_> =
        transports.iter().map(|&transport| Column { results, transport }).collect();
    let heads = columns.iter().map(|column| {
        let health = column.text(|results, result| {
            if results.is_running { health_label(result.counters.health) } else { "" }.to_owned()
        });
        view! {
            <th scope="col">
                {transport_label(column.transport)} <span class="health" prop:textContent=health></span>
            </th>
        }
    });
    let plots = columns.iter().map(|&column| view! { <td><Plot column /></td> });
    let rows = METRICS.iter().map(|metric| {
        let cells = columns.iter().map(|column| {
            view! {
                <td
                    data-transport=column.transport.as_str()
                    prop:textContent=column.text(metric.text)
                ></td>
            }
        });
        let is_hidden = Memo::new(move |_| {
            results
                .with(|results| results.as_ref().is_none_or(|results| !metric.has_values(results)))
        });
        view! {
            <tr hidden=is_hidden>
                <th scope="row">{metric.label}</th>
                {cells.collect_view()}
            </tr>
        }
    });
    let about =
        text(move || results.with(|of| of.as_ref().map(Results::description)).unwrap_or_default());
    view! {
        <div class="results" tabindex="0" role="region" aria-label="Results">
            <table>
                <thead>
                    <tr>
                        <td></td>
                        {heads.collect_view()}
                    </tr>
                </thead>
                <tbody>
                    <tr>
                        <th scope="row">"Latency"</th>
                        {plots.collect_view()}
                    </tr>
                    {rows.collect_view()}
                </tbody>
            </table>
        </div>
        <p class="about" prop:textContent=about></p>
    }
}
