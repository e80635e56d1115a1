//! The results as a table: a column for each lane.

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::{
    plot::Plot,
    results::{LaneResult, ROWS, Results, health_in_words, name},
};
use crate::reactive::text;

/// The results, live or from a link.
#[component]
pub(crate) fn Table(results: RwSignal<Option<Results>>) -> impl IntoView {
    let lanes = Memo::new(move |_| {
        results.with(|results| {
            let lanes = results.as_ref().map(|results| results.lanes.iter());
            lanes.map(|lanes| lanes.map(|lane| lane.transport).collect::<Vec<_>>())
        })
    });
    // It is drawn anew only when there are other lanes; within it, texts change.
    move || lanes.get().map(|lanes| table(&lanes, results))
}

/// A lane's column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    results: RwSignal<Option<Results>>,
    transport: Transport,
}

impl Column {
    /// A text of it that changes with the results.
    pub(crate) fn text(self, write: fn(&Results, &LaneResult) -> String) -> Signal<String> {
        text(move || {
            self.results
                .with(|results| {
                    let results = results.as_ref()?;
                    let is_ours = |lane: &&LaneResult| lane.transport == self.transport;
                    Some(write(results, results.lanes.iter().find(is_ours)?))
                })
                .unwrap_or_default()
        })
    }
}

fn table(lanes: &[Transport], results: RwSignal<Option<Results>>) -> impl IntoView + use<> {
    let columns: Vec<_> = lanes.iter().map(|&transport| Column { results, transport }).collect();
    let heads = columns.iter().map(|column| {
        let health = column.text(|results, lane| {
            if results.is_running { health_in_words(lane.figures.health) } else { "" }.to_owned()
        });
        view! {
            <th scope="col">
                {name(column.transport)} <span class="health">{health}</span>
            </th>
        }
    });
    let plots = columns.iter().map(|&lane| view! { <td><Plot lane /></td> });
    let rows = ROWS.iter().map(|row| {
        let cells = columns.iter().map(|column| {
            view! { <td data-transport=column.transport.as_str()>{column.text(row.text)}</td> }
        });
        let is_of_no_use = Memo::new(move |_| {
            results.with(|results| results.as_ref().is_none_or(|results| !row.is_of_use(results)))
        });
        view! {
            <tr hidden=is_of_no_use>
                <th scope="row">{row.label}</th>
                {cells.collect_view()}
            </tr>
        }
    });
    let about =
        text(move || results.with(|of| of.as_ref().map(Results::about)).unwrap_or_default());
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
        <p class="about">{about}</p>
    }
}
