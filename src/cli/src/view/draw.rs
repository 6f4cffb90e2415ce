//! Draws a view: a pure function from what is seen to cells. Narrow terminals lose columns, low ones lose panels, and
//! none of them loses the money or the nodes.

use karpenter_e2e::observe::Entry;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Widget as _};

use super::frame::{Frame, NodeRow, NodeState};
use super::playback::Playback;

/// From this width on, nodes and events stand side by side.
const WIDE: u16 = 120;
/// Below this height, panels have no borders and keys are not explained.
const LOW: u16 = 14;

/// All that a view shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewState<'a> {
    /// Seed of the world.
    pub(crate) seed: u64,
    /// What is seen.
    pub(crate) frame: &'a Frame,
    /// Milestones, the frame's and perhaps later ones.
    pub(crate) entries: &'a [Entry],
    /// How it moves.
    pub(crate) motion: Motion<'a>,
}

/// How a view moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Motion<'a> {
    /// A story that was told, shown again.
    Playback(&'a Playback),
    /// The world as it is; with a line on what can be done to it.
    Live(&'a str),
}

/// Draws it.
pub(crate) fn draw(state: &ViewState<'_>, area: Rect, buf: &mut Buffer) {
    let low = area.height < LOW;
    // Cut from the top in the order of worth: a solver of constraints takes from all when there is too little.
    let mut rest = area;
    let [title, cost, pods] = [(); 3].map(|()| cut_line(&mut rest));
    let [body, keys] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(u16::from(!low))]).areas(rest);
    Paragraph::new(heading(state))
        .style(Style::new().add_modifier(Modifier::REVERSED))
        .render(title, buf);
    Paragraph::new(money(state.frame)).render(cost, buf);
    Paragraph::new(pod_line(state.frame, pods.width)).render(pods, buf);
    let (nodes, events) = split(body, low, state.frame.nodes.len());
    draw_nodes(state, nodes, low, buf);
    draw_events(state, events, low, buf);
    if !low {
        Paragraph::new(help(&state.motion))
            .style(Style::new().add_modifier(Modifier::DIM))
            .render(keys, buf);
    }
}

/// Takes the first line off, an empty one if there is none.
fn cut_line(rest: &mut Rect) -> Rect {
    let height = rest.height.min(1);
    let line = Rect { height, ..*rest };
    rest.y += height;
    rest.height -= height;
    line
}

fn split(body: Rect, low: bool, rows: usize) -> (Rect, Rect) {
    if body.width >= WIDE {
        let [nodes, events] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                .areas(body);
        return (nodes, events);
    }
    // Events get what the nodes leave, and at least two fifths.
    let frame = if low { 1 } else { 3 };
    let wanted = u16::try_from(rows.max(1))
        .unwrap_or(u16::MAX)
        .saturating_add(frame);
    let most = body.height.saturating_mul(3) / 5;
    let [nodes, events] =
        Layout::vertical([Constraint::Length(wanted.min(most)), Constraint::Min(0)]).areas(body);
    (nodes, events)
}

fn heading(state: &ViewState<'_>) -> String {
    let now = clock(state.frame.at);
    match state.motion {
        Motion::Playback(p) => {
            let pace = if p.paused() {
                "paused".to_owned()
            } else if p.at() >= p.end() {
                "the end".to_owned()
            } else {
                format!("{:.0}x", p.speed())
            };
            format!(
                " karpenter demo  {now} of {}  {pace}  seed {}",
                clock(p.end()),
                state.seed
            )
        }
        Motion::Live(_) => format!(" karpenter demo  {now}  live  seed {}", state.seed),
    }
}

fn help<'a>(motion: &Motion<'a>) -> Line<'a> {
    match motion {
        Motion::Playback(_) => {
            Line::from(" q quit   space pause   + faster   - slower   e to the end")
        }
        Motion::Live("") => Line::from(" q quit"),
        Motion::Live(note) => Line::from(format!(" q quit   {note}")),
    }
}

/// Minutes and seconds, with hours once there are any.
fn clock(seconds: f64) -> String {
    // Whole seconds of a story: far below what a u64 holds, and never negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let s = seconds.max(0.0) as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{:02}:{:02}", s / 60, s % 60)
    }
}

fn money(frame: &Frame) -> String {
    let count = |s: NodeState| frame.nodes.iter().filter(|n| n.state == s).count();
    let coming =
        count(NodeState::Launching) + count(NodeState::Booting) + count(NodeState::Joining);
    format!(
        " ${:.4}/h  ${:.4} spent  {} ready, {coming} coming, {} leaving",
        // Adding zero turns a negative zero (an empty sum) into a plain one.
        frame.per_hour + 0.0,
        frame.spent + 0.0,
        count(NodeState::Ready),
        count(NodeState::Leaving)
    )
}

/// Counts of pods and, where there is room, a bar of them.
fn pod_line(frame: &Frame, width: u16) -> Line<'static> {
    let p = frame.pods;
    let counts = format!(
        " pods: {} running, {} starting, {} pending ",
        p.running, p.starting, p.pending
    );
    let total = p.running + p.starting + p.pending;
    let room = u64::from(width).saturating_sub(counts.chars().count() as u64 + 1);
    let mut line = vec![Span::raw(counts)];
    if total > 0 && room >= 10 {
        let cells = |n: u64| usize::try_from(n * room / total).unwrap_or_default();
        let running = cells(p.running);
        let starting = cells(p.running + p.starting).saturating_sub(running);
        let pending = cells(total).saturating_sub(running + starting);
        line.push(Span::styled(
            "█".repeat(running),
            Style::new().fg(Color::Green),
        ));
        line.push(Span::styled(
            "▒".repeat(starting),
            Style::new().fg(Color::Yellow),
        ));
        line.push(Span::styled(
            "░".repeat(pending),
            Style::new().fg(Color::Red),
        ));
    }
    Line::from(line)
}

/// Renders a panel's frame and gives back its inside.
fn panel(title: String, area: Rect, low: bool, buf: &mut Buffer) -> Rect {
    if low {
        return area;
    }
    let block = Block::new().borders(Borders::ALL).title(title);
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

fn draw_nodes(state: &ViewState<'_>, area: Rect, low: bool, buf: &mut Buffer) {
    let rows = &state.frame.nodes;
    let inner = panel(format!(" nodes: {} ", rows.len()), area, low, buf);
    let room = usize::from(inner.height.saturating_sub(1));
    // The newest are the news; the last line says how many older ones there is no room for.
    let hidden = if rows.len() > room {
        rows.len() - room.saturating_sub(1)
    } else {
        0
    };
    let columns = columns(inner.width);
    let mut lines: Vec<Row<'_>> = rows
        .iter()
        .skip(hidden)
        .map(|n| Row::new(columns.iter().map(|c| Cell::from((c.text)(n)))).style(style_of(n.state)))
        .collect();
    if hidden > 0 {
        lines.push(Row::new([format!("and {hidden} older")]));
    }
    Table::new(lines, columns.iter().map(|c| c.width))
        .header(
            Row::new(columns.iter().map(|c| c.title))
                .style(Style::new().add_modifier(Modifier::BOLD)),
        )
        .render(inner, buf);
}

struct Column {
    title: &'static str,
    width: Constraint,
    /// Narrowest panel that shows it.
    from: u16,
    text: fn(&NodeRow) -> String,
}

fn columns(width: u16) -> Vec<Column> {
    let all = [
        Column {
            title: "NODE",
            width: Constraint::Min(10),
            from: 0,
            text: |n| n.name.clone(),
        },
        Column {
            title: "TYPE",
            width: Constraint::Length(18),
            from: 50,
            text: |n| n.instance_type.clone(),
        },
        Column {
            title: "ZONE",
            width: Constraint::Length(11),
            from: 76,
            text: |n| n.zone.clone(),
        },
        Column {
            title: "CAPACITY",
            width: Constraint::Length(9),
            from: 88,
            text: |n| n.capacity_type.clone(),
        },
        Column {
            title: "CPU",
            width: Constraint::Length(7),
            from: 98,
            text: |n| n.cpu.clone(),
        },
        Column {
            title: "PODS",
            width: Constraint::Length(4),
            from: 0,
            text: |n| n.pods.to_string(),
        },
        Column {
            title: "$/H",
            width: Constraint::Length(8),
            from: 60,
            text: |n| n.price.map_or(String::new(), |p| format!("{p:.4}")),
        },
        Column {
            title: "STATE",
            width: Constraint::Length(9),
            from: 0,
            text: |n| n.state.word().to_owned(),
        },
    ];
    all.into_iter().filter(|c| width >= c.from).collect()
}

fn style_of(state: NodeState) -> Style {
    Style::new().fg(match state {
        NodeState::Launching | NodeState::Booting | NodeState::Joining => Color::Yellow,
        NodeState::Ready => Color::Green,
        NodeState::NotReady => Color::Red,
        NodeState::Leaving => Color::Magenta,
    })
}

fn draw_events(state: &ViewState<'_>, area: Rect, low: bool, buf: &mut Buffer) {
    let inner = panel(" events ".to_owned(), area, low, buf);
    let seen = state.frame.entries.min(state.entries.len());
    let first = seen.saturating_sub(usize::from(inner.height));
    let lines: Vec<Line<'_>> = state
        .entries
        .iter()
        .take(seen)
        .skip(first)
        .map(|e| {
            let object = if e.object.is_empty() {
                String::new()
            } else {
                format!(" {}", e.object)
            };
            let text = format!("{} {}{object}: {}", clock(e.at), e.kind, e.message);
            let style = if e.kind == "Step" {
                Style::new().add_modifier(Modifier::BOLD)
            } else {
                Style::new()
            };
            Line::styled(text, style)
        })
        .collect();
    Paragraph::new(lines).render(inner, buf);
}
