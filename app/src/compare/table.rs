//! The results as a table: a column for each transport, and groups of rows. On a narrow screen, the
//! style sheet makes a card of each transport. Browsers drop the roles of a table with such a
//! layout, so the roles are explicit.

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::{
    column::Column,
    format::transport_label,
    results::{GROUPS, Metric, MetricGroup, Results, health_label},
};
use crate::reactive::text;

/// The results of a run in this page, or of a link.
#[component]
pub(crate) fn Table(
    transports: Memo<Vec<Transport>>,
    results: RwSignal<Option<Results>>,
) -> impl IntoView {
    let is_shown = Memo::new(move |_| results.with(Option::is_some));
    // The table is rendered again only for other transports. Otherwise only its texts change.
    move || is_shown.get().then(|| table(&transports.get(), results))
}

fn table(transports: &[Transport], results: RwSignal<Option<Results>>) -> impl IntoView + use<> {
    let columns: Vec<_> =
        transports.iter().map(|&transport| Column { results, transport }).collect();
    let heads = columns.iter().map(|column| {
        let health = column.text(|results, result| {
            if results.is_running { health_label(result.counters.health) } else { "" }.to_owned()
        });
        view! {
            <th scope="col" role="columnheader">
                {transport_label(column.transport)} " "
                <span class="health" prop:textContent=health></span>
            </th>
        }
    });
    let groups = GROUPS.iter().map(|MetricGroup { title, metrics }| {
        let rows = metrics.iter().enumerate().map(|(i, metric)| {
            // The first row of a group also names the group in a card.
            row(&columns, metric, results, (i == 0).then_some(*title))
        });
        view! {
            <tbody role="rowgroup">
                <tr role="row">
                    <th role="rowheader" scope="rowgroup" colspan=columns.len() + 1>
                        {*title}
                    </th>
                </tr>
                {rows.collect_view()}
            </tbody>
        }
    });
    let about =
        text(move || results.with(|of| of.as_ref().map(Results::description)).unwrap_or_default());
    view! {
        <div class="results" tabindex="0" role="region" aria-label="Results">
            <table role="table">
                <thead role="rowgroup">
                    <tr role="row">
                        <td role="cell"></td>
                        {heads.collect_view()}
                    </tr>
                </thead>
                {groups.collect_view()}
            </table>
        </div>
        <p class="about" prop:textContent=about></p>
    }
}

fn row(
    columns: &[Column],
    metric: &'static Metric,
    results: RwSignal<Option<Results>>,
    group: Option<&'static str>,
) -> impl IntoView + use<> {
    let cells = columns.iter().map(|column| {
        view! {
            <td
                role="cell"
                data-group=group
                data-label=metric.label
                data-transport=column.transport.as_str()
                prop:textContent=column.text(metric.text)
            ></td>
        }
    });
    let is_hidden = Memo::new(move |_| {
        results.with(|results| !results.as_ref().is_some_and(|of| (metric.applies)(of)))
    });
    view! {
        <tr role="row" hidden=is_hidden>
            <th role="rowheader" scope="row">
                {metric.label}
            </th>
            {cells.collect_view()}
        </tr>
    }
}
