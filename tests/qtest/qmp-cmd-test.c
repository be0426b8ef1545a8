/* overlay: after query-balloon */
        { "query-balloon-stats", ERROR_CLASS_DEVICE_NOT_ACTIVE },
