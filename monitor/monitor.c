/* overlay: after QAPI_EVENT_BALLOON_CHANGE */
    [QAPI_EVENT_BALLOON_STATE_CHANGE] = { 1000 * SCALE_MS },
/* overlay: new */
    [QAPI_EVENT_BALLOON_STATS]     = { 1000 * SCALE_MS },
